"""What is asked: a call, its counts, and whose its route says it is."""
