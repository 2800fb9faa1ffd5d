"""Labels as they lie in an output: written, found again, counted, compared."""
