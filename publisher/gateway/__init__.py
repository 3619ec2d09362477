"""Publications as resources of Envoy Gateway: pure functions from a plan, and the sinks that put them in force."""
