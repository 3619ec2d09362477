"""Several processes that do the same work: the parent, the worker, what they say to each other."""
