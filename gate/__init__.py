"""Both services on one address: put together, linked to their stores, counted among their like."""
