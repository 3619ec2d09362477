"""What subjects are used: counted in the gate, written once a second, read by minute, hour and day."""
