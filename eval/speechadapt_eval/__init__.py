"""Metrics, statistics and reports for any system that transcribes."""
