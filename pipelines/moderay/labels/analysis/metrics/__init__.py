"""How good verdicts are: figures from counts, each with its interval; nothing is read here."""
