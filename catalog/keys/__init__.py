"""Key texts: how they are made, recognised, hashed and recovered, and the secrets that all of it needs."""
