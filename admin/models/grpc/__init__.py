"""Models whose servers are spoken to by gRPC."""
