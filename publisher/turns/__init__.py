"""Publishing by turns: the lease, the board, who leads."""
