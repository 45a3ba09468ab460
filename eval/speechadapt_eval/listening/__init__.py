"""Listening tests: the page that collects ratings, their reading, screening and mean scores."""
