"""The ground: errors, events, hashes, storage, verdicts, Ray's runtime."""
