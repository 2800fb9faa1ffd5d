"""`moderay diff`: two outputs of the same input beside each other."""
