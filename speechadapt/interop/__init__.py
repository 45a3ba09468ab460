"""Adapters and checkpoints of other libraries, both ways, where the mathematics is the same."""
