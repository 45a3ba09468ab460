"""Frozen models: where their weights come from, and the sites where adapters attach."""
