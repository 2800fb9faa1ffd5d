"""The input: its files, their formats and columns, and the contents in them."""
