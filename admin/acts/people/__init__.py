"""Changes of who may use the API: users and service accounts. Pure."""
