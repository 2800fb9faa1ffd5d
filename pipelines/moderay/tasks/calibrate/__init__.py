"""`moderay calibrate`."""
