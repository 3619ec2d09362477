"""Resources of Envoy Gateway in a Kubernetes cluster."""
