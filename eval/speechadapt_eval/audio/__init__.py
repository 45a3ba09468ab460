"""Audio: reading it, predicted MOS, and comparison with a clean reference."""
