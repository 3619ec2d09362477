"""The HTTP API operators use: models, publications, keys, tenants, usage, audit."""
