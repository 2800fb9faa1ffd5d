"""`moderay filter`."""
