"""What the benchmarks stand on: servers with their processor time, generators of load, rounds, bars and results."""
