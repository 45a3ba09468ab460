"""Utterances, the formats they are read from, and batches."""
