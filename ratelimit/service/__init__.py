"""The edge of Envoy's rate-limit service."""
