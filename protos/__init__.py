"""Trimmed Envoy protos with upstream field numbers, and the code generated from them."""
