"""`moderay eval`: labels beside what people said."""
