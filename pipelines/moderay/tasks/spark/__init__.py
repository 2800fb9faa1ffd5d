"""Judging inside Spark: a DataFrame in, the same with verdicts out."""
