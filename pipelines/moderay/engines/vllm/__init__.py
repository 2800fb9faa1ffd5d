"""vLLM, hosted by this cluster."""
