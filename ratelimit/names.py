"""The names of the limiter's keys in the store; nobody else spells them. Pure.

    tk:budget:{<cell>}:<subject>         string, packed windows      longest window + one bucket   lua/take.lua
    tk:usage:{<cell>}:<subject>          hash: total, last_ms        none; deleted with its owner  lua/take.lua
    tk:usage:{<cell>}:<subject>:<hour>   hash: minute -> calls       8 days                        lua/take.lua

``<hour>`` counts the hours since the Unix epoch (UTC) by the store's clock. ``take.lua`` appends it itself.
The hash tag is the cell, so that one script may touch all subjects of a batch.
"""

from __future__ import annotations


def budget_prefix(cell: str) -> str:
    """What stands before the subject in the name of its packed windows."""
    return f"tk:budget:{{{cell}}}:"


def usage_prefix(cell: str) -> str:
    """What stands before the subject in the name of its usage hash."""
    return f"tk:usage:{{{cell}}}:"


def budget_key(cell: str, subject: str) -> str:
    """Name of a subject's packed windows."""
    return budget_prefix(cell) + subject


def usage_key(cell: str, subject: str) -> str:
    """Name of a subject's usage hash."""
    return usage_prefix(cell) + subject


def usage_hour_key(cell: str, subject: str, hour: int) -> str:
    """Name of a subject's usage in one hour; ``hour`` = hours since the Unix epoch."""
    return f"{usage_prefix(cell)}{subject}:{hour}"
