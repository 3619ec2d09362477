"""What exists: tenants, models, publications and keys, how they are stored and how their changes are fed to readers.

Knows no budget state.
"""
