"""The stages of a run, which work in tasks and actors."""
