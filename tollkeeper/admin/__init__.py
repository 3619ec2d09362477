"""The admin process: its settings and its wiring."""
