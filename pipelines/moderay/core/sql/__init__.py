"""SQL that people write over one row."""
