"""What surrounds a run: a folder or a file for each command."""
