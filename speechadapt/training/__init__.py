"""Training an adapter: examples, objective, loop and checkpoints."""
