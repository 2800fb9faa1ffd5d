"""What surrounds a run: one file or folder a command."""
