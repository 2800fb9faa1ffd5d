"""What `moderay decide` does: people's answers and other thresholds, over finished labels."""
