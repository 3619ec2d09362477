"""Publications to Envoy: manifests are pure functions, sinks do the I/O."""
