"""The `speechadapt` command: one file for each sub-command."""
