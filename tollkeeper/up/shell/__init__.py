"""What somebody at a shell reads, pastes and calls."""
