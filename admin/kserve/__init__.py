"""Models from KServe: InferenceServices and labelled namespaces become the catalog's models and tenants."""
