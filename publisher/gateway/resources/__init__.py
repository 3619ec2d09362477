"""A plan as resources of Envoy Gateway: pure functions."""
