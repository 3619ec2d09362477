"""What one key and route decide, decided once and kept: lanes, how they are found, and how long they stand."""
