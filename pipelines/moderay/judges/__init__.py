"""Judges turn contents and a policy into verdicts: one file each."""
