"""A policy that is being written: its rows judged again whenever it is saved, on a warm engine."""
