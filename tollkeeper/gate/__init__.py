"""The gate process: its settings and its wiring, alone or in workers."""
