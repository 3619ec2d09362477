"""What each act changes: pure functions from records to records and changes. No I/O, no clock, no randomness."""
