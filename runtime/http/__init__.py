"""Small HTTP servers: what a process says of itself, and what connections to it may take. Knows no process."""
