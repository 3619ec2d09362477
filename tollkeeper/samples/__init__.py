"""Two small model servers to publish: KServe v1 and OpenAI-compatible."""
