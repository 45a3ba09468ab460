"""Systems under test: what one must offer, and the kinds that come with this package."""
