"""What people write: job files and policies, read with every problem at once."""
