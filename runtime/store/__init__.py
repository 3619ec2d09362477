"""Connections to a store: one link a thread, bounded; what keeps links good; the written forms of a store's address."""
