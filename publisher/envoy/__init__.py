"""Publications as the files of a plain Envoy: pure functions from a plan, and the sink that puts them in force."""
