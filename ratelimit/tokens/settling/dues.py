"""What one ended call is charged, by its ending and the terms it was admitted under. Pure: no I/O, no clock."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ratelimit.tokens.costs import Cost, Ending, charge_of
from ratelimit.tokens.ledger import Settlement
from ratelimit.tokens.settling.backlog import Waiting
from ratelimit.tokens.terms import Simple, Terms, Work, simple_terms


class Due(NamedTuple):
    """A call that has ended, and what it is charged."""

    one: Waiting
    settlement: Settlement
    cost: Cost | None = None  # None: it is given back
    terms: Terms | None = None  # likewise; also where nothing else of them mattered than what it is charged
    raw_terms: bytes = b""  # as they were written down, where there are any


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
    ended = one.told.ended
    simple = None if ended.aborted else simple_terms(raw_terms)
    if simple is not None and (tokens := ended.told) is not None:
        return _told_simply(one, simple, tokens, raw_terms)
    try:
        terms = Terms.unpack(raw_terms)
    except ValueError:
        return Left.UNREADABLE
    cost, work = charge_of(terms, ended), terms.asked.work
    above = 0 if work is Work.FORM else cost.above  # nobody could have held what a form costs
    usage = None if work is Work.FETCHES else _TELLS_USAGE.get(cost.ending)
    settlement = _new(Settlement, (one.reservation, cost.tokens, True, above, usage, ()))
    return _new(Due, (one, settlement, cost, terms, raw_terms))


def _told_simply(one: Waiting, simple: Simple, told: int, raw_terms: bytes) -> Due:
    """The same as ``charge_of`` says, of a whole answer that is believed: most endings are such."""
    reserved, ceiling, is_form = simple
    tokens = min(told, ceiling)
    above = max(0, tokens - reserved)
    cost = _new(Cost, (Ending.USAGE, tokens, told > ceiling, above))
    settlement = _new(Settlement, (one.reservation, tokens, True, 0 if is_form else above, True, ()))
    return _new(Due, (one, settlement, cost, None, raw_terms))


_new = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""


_TELLS_USAGE = {Ending.USAGE: True, Ending.NO_USAGE: False}
