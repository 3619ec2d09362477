"""What a caller is answered, and what the log says of refusals."""
