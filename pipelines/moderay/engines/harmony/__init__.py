"""The prompt and answer format of the gpt-oss models."""
