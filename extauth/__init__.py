"""May this key call this model? The Check edge, the pure decision, the record cache and the batch path."""
