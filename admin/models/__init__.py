"""Models: where they are, whether they are ready, what they are called."""
