"""Intervals and tests: what a difference between two figures is worth."""
