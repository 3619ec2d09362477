"""Shared floor: settings, clocks, store connections, the gRPC front, metrics endpoint, logging, lifecycle.

Knows no key and no budget.
"""
