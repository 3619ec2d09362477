"""What is asked with the text of a key: whether it is valid, and whose it is or was."""
