"""What one ended call is charged, by its ending and the terms it was admitted under. Pure: no I/O, no clock."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ratelimit.tokens.costs import Cost, Ending, charge_of
from ratelimit.tokens.ledger import Settlement
from ratelimit.tokens.settling.backlog import Waiting
from ratelimit.tokens.terms import Terms, Work


class Due(NamedTuple):
    """A call that has ended, and what it is charged."""

    one: Waiting
    settlement: Settlement
    cost: Cost | None = None  # None: it is given back
    terms: Terms | None = None  # likewise


class Left(enum.Enum):
    """Why a call is not settled."""

    UNKNOWN = enum.auto()  # the ledger does not know it
    UNREADABLE = enum.auto()  # its terms cannot be read: the sweep presumes it


def due_of(one: Waiting, raw_terms: bytes | None) -> Due | Left:
    """Say what a call is charged; ``raw_terms``: as they were written down, ``None``: the ledger does not know it."""
    if raw_terms is None and one.unheard_until_ms is None:
        return Left.UNKNOWN
    if one.told is None or raw_terms is None:  # of one that is not known yet the script says how late it is
        return Due(one, Settlement(one.reservation, 0, is_told=False))
    try:
        terms = Terms.unpack(raw_terms)
    except ValueError:
        return Left.UNREADABLE
    cost, work = charge_of(terms, one.told.ended), terms.asked.work
    above = 0 if work is Work.FORM else cost.above  # nobody could have held what a form costs
    usage = None if work is Work.FETCHES else _TELLS_USAGE.get(cost.ending)
    settlement = _new(Settlement, (one.reservation, cost.tokens, True, above, usage, ()))
    return _new(Due, (one, settlement, cost, terms))


_new = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""


_TELLS_USAGE = {Ending.USAGE: True, Ending.NO_USAGE: False}
