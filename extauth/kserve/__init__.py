"""KServe's own paths: which model they name, what they ask of it, and what the gate answers itself."""
