"""What a beginner starts from: a job over their own file, and a policy."""
