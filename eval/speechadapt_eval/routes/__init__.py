"""What adapters change, where routing goes, and what stays as it was."""
