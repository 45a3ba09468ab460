"""Tensor operations of speechadapt: torch and Triton only, no model, no file, no config."""
