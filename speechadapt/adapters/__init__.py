"""Adapter families: one file each, their configs, and the registry that names them."""
