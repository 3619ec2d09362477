"""Sliding windows: budgets, the script that takes, and its one caller."""
