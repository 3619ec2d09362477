"""The command line and the one-screen wiring of each process."""
