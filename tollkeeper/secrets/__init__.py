"""The file of secrets from the command line: made, added to, rotated."""
