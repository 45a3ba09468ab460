"""Corpora preparation and experiment presets."""
