"""Experiment presets (YAML)."""
