"""The records in the store: read, committed, announced and followed."""
