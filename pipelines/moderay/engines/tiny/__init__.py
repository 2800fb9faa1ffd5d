"""How `tiny`, the embedded checkpoint, was made: its texts, its training, and a demo corpus."""
