"""What watches over a run: the board, limits, progress, metrics, sizes."""
