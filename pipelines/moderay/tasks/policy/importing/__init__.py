"""Policies as others publish them -> policy.md and golden.jsonl."""
