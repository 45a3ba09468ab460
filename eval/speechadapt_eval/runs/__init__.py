"""Runs: systems transcribe test sets, and the folder that keeps what came of it."""
