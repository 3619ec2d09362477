"""What KServe's clients call: the paths of a model below its publication's path, and by its name on a host."""
