"""Jobs on a Ray cluster: made ready for it, checked there, queued, watched and stopped."""
