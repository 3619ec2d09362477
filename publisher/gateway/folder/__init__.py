"""Resources of Envoy Gateway in a folder that it reads."""
