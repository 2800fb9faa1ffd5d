"""`moderay export`: what people taught, for a trainer."""
