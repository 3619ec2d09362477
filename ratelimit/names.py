"""The names of the limiter's keys in the store, and the scripts that write them; nobody else spells them. Pure.

    tk:budget:{<cell>}:<subject>         string, packed windows        longest window + one bucket   take, settle
    tk:held:{<cell>}                     hash: id -> reservation       none; swept                   take, settle
    tk:due:{<cell>}                      sorted set: id by due_ms      none; swept                   take, settle
    tk:usage:{<cell>}:<subject>          hash: total, last_ms, tokens, none; deleted with its owner  take, settle
                                         settled_ms, unsettled
    tk:usage:{<cell>}:<subject>:<hour>   hash: minute -> calls,        8 days                        take, settle
                                         t<minute> -> tokens
    tk:due:{<cell>}:rest                 string, us since the epoch    2 s                           settle
    tk:learned:{<cell>}:<subject>        hash: quantity:bin -> calls   90 days                       learn

``<hour>`` counts the hours since the Unix epoch (UTC) by the store's clock. The scripts append it themselves.
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


def held_key(cell: str) -> str:
    """Name of the reservations of a cell."""
    return f"tk:held:{{{cell}}}"


def due_key(cell: str) -> str:
    """Name of the order in which a cell's reservations are due."""
    return f"tk:due:{{{cell}}}"


def rest_key(cell: str) -> str:
    """Name of the moment until which settling rests in a cell."""
    return f"{due_key(cell)}:rest"


UNFENCED = "tk:unfenced:{{{}}}"
"""Never set: the epoch and the feed of budgets behind which no record stands. Takes the cell."""


def learned_key(cell: str, subject: str) -> str:
    """Name of what a subject's calls turned out to cost."""
    return f"tk:learned:{{{cell}}}:{subject}"
