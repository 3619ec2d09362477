"""Does the call fit its budgets? Window maths, the one script that takes, and its one caller.

Knows subjects and budgets, never keys or tenants' names.
"""
