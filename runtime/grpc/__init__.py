"""gRPC in batches: the seam, its two transports, health and TLS."""
