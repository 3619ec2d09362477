"""A batch while it is worked on: its state, and what its open calls come to."""
