"""Small bases that are pretrained from nothing, with their provenance written down."""
