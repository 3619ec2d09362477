"""Calls of gRPC: what makes one, and how it is refused."""
