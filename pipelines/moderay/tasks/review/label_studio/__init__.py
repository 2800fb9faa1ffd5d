"""Tasks for Label Studio, and the answers that come back, in its own JSON."""
