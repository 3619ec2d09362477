"""The names of the limiter's keys in the store, and the scripts that write them; nobody else spells them. Pure.

    tk:budget:{<cell>}:<subject>         string, packed windows        longest window + one bucket   take, settle
    tk:held:{<cell>}                     hash: id -> reservation       none; swept                   take, settle
    tk:held:{<cell>}:<publication>:<id>  string: a reservation         as long as the reservation    results
    tk:due:{<cell>}                      sorted set: id by due_ms      none; swept                   take, settle
    tk:due:{<cell>}:pause                string: until when settling   2 s                           settle
                                         rests, in microseconds
    tk:due:{<cell>}:run:<gate>           string: what its last run did half an hour                  settle
    tk:due:{<cell>}:rest                 the same                      2 s                           the version before
    tk:usage:{<cell>}:<subject>          hash: total, last_ms, tokens, none; 13 months once its      count
                                         now (packed), settled_ms,     owner is gone
                                         unsettled, estimated
    tk:usage:{<cell>}:<subject>:past     string: minutes, hours, days  13 months and a day           count
    tk:usage:{<cell>}:<subject>:gone     string: the tenant            an hour                       commit
    tk:usage:{<cell>}:flushed:<gate>     string: number of a flush     an hour                       count
    tk:usage:{<cell>}:<subject>:m<hour>  hash: minute -> calls,        2 hours                       the release before
                                         t<minute> -> tokens
    tk:usage:{<cell>}:<subject>:h<day>   hash: hour likewise           8 days                        the release before
    tk:usage:{<cell>}:<subject>:d<days>  hash: day likewise            13 months and 32 days         the release before
    tk:usage:{<cell>}:<subject>:<hour>   hash: minute likewise         8 days                        the one before it
    tk:learned:{<cell>}:<subject>        hash: quantity:bin -> calls   90 days                       learn
    tk:learned:{<cell>}:<subject>:by     hash: caller -> calls         90 days                       learn

``<hour>`` and ``<day>`` count from the Unix epoch (UTC) by the store's clock, ``<days>`` 32 of them. The scripts append
these themselves. Minutes and hours are of their hour and day, days are whole numbers of days.
The hash tag is the cell, so that one script may touch all subjects of a batch.
"""

from __future__ import annotations

from typing import Final

DAYS_A_HASH: Final = 32
USAGE_KEPT_S: Final = 397 * 24 * 3600
"""How long the usage of what is no more stays: 13 months."""


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


def usage_past_key(cell: str, subject: str) -> str:
    """Name of what a subject was used by minute, hour and day, but for those that still run."""
    return f"{usage_prefix(cell)}{subject}:past"


def usage_flush_key(cell: str, gate: str) -> str:
    """Name of the number of a gate's last flush of usage that was written in a cell."""
    return f"{usage_prefix(cell)}flushed:{gate}"


def usage_minutes_key(cell: str, subject: str, hour: int) -> str:
    """Name of a subject's usage by the minutes of one hour; ``hour`` = hours since the Unix epoch."""
    return f"{usage_prefix(cell)}{subject}:m{hour}"


def usage_hours_key(cell: str, subject: str, day: int) -> str:
    """Name of a subject's usage by the hours of one day; ``day`` = days since the Unix epoch."""
    return f"{usage_prefix(cell)}{subject}:h{day}"


def usage_days_key(cell: str, subject: str, day: int) -> str:
    """Name of the hash that holds a subject's usage of this day, among its neighbours."""
    return f"{usage_prefix(cell)}{subject}:d{day // DAYS_A_HASH}"


def usage_hour_key(cell: str, subject: str, hour: int) -> str:
    """Name of a subject's usage in one hour as the version before wrote it; ``hour`` = hours since the Unix epoch."""
    return f"{usage_prefix(cell)}{subject}:{hour}"


def held_key(cell: str) -> str:
    """Name of the reservations of a cell."""
    return f"tk:held:{{{cell}}}"


def result_key(cell: str, publication: str, answers_id: str) -> str:
    """Name of the reservation of which an answer of this id, by a publication's server, is to tell the usage."""
    return f"{held_key(cell)}:{publication}:{answers_id}"


def due_key(cell: str) -> str:
    """Name of the order in which a cell's reservations are due."""
    return f"tk:due:{{{cell}}}"


def rest_key(cell: str) -> str:
    """Name of the moment until which settling rests in a cell; below that of the order, where a gate may write."""
    return f"{due_key(cell)}:pause"


def run_key(cell: str, gate: str) -> str:
    """Name of what a gate's last run did that settled in a cell: it may have to be told again."""
    return f"{due_key(cell)}:run:{gate}"


def old_rest_key(cell: str) -> str:
    """Name of the same as gates of the version before write it, and they alone: where it is, one of them settles."""
    return f"{due_key(cell)}:rest"


UNFENCED = "tk:unfenced:{{{}}}"
"""Never set: the epoch and the feed of budgets behind which no record stands. Takes the cell."""


def learned_key(cell: str, subject: str) -> str:
    """Name of what a subject's calls turned out to cost."""
    return f"tk:learned:{{{cell}}}:{subject}"


def taught_key(cell: str, subject: str) -> str:
    """Name of who taught that, and by how many calls."""
    return f"{learned_key(cell, subject)}:by"
