"""What is done with a policy's folder without a model: lint, import, show."""
