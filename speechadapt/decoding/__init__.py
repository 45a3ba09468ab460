"""From encoder states to text: search, timestamps, long files, output formats."""
