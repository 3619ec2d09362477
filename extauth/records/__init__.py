"""What a gate knows of the catalog: records made ready, kept as of one epoch, read when they are missing."""
