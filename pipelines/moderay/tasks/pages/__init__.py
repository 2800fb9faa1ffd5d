"""Pages of HTML that need nothing else: one file that opens from disk and asks nobody."""
