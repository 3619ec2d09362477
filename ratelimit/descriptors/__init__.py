"""Ordinary descriptors: the file of limits, which of them a call meets, and what is answered."""
