"""`moderay verify`."""
