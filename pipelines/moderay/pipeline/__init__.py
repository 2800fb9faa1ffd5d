"""One run: its stages, what controls it, and what the output says of it."""
