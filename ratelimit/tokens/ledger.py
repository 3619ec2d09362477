"""The token ledger: reservations that ``take.lua`` made are ended here, once. The only caller of ``lua/settle.lua``.

A reservation is made in the script that admits a call (``ratelimit.windows.limiter``, ``Charge.hold``) and ended by
whoever hears what the call cost, or by the sweep once it is overdue. Knows ids and tokens; what an ending costs is
``ratelimit.tokens.costs``' business, and waiting and retrying that of whoever gives ``execute``. All of it may be
repeated.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.resources
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.exceptions import NoScriptError

from ratelimit.names import due_key, held_key, rest_key
from ratelimit.windows.limiter import Execute

MAX_SETTLEMENTS: Final = 1_000
"""Most settlements, and most overdue reservations, of one script."""

_SETTLE: Final = importlib.resources.files("ratelimit.tokens").joinpath("lua/settle.lua").read_bytes()
_SETTLE_SHA: Final = hashlib.sha1(_SETTLE, usedforsecurity=False).hexdigest()  # how the store names scripts
_RESTING: Final = 2
_LENGTH: Final = struct.Struct("<H")  # of the terms, which a reservation begins with


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call turned out to cost."""

    id: str  # of its reservation
    tokens: int  # 0..10^9; more than the reservation's ceiling is charged as the ceiling
    is_told: bool = True  # by the proxy; False: nobody told, the call was never answered


class Outcome(enum.StrEnum):
    """What became of one settlement."""

    SETTLED = "settled"
    REPLACED = "replaced"  # it came late: what had been presumed was put right, as far as it is still counted
    UNKNOWN = "unknown"  # no such reservation: never made, settled before, or forgotten; nothing changed
    CORRUPT = "corrupt"  # the reservation could not be read; it is gone, its tokens stay counted


_OUTCOMES: Final = {
    ord("S"): Outcome.SETTLED,
    ord("L"): Outcome.REPLACED,
    ord("U"): Outcome.UNKNOWN,
    ord("C"): Outcome.CORRUPT,
}


@dataclass(frozen=True, slots=True)
class Settled:
    """The script's reply."""

    now_ms: int  # the store's clock in the script
    outcomes: tuple[Outcome, ...]  # one for each settlement that was looked at, in order: all, unless time ran out
    presumed: int  # overdue reservations that were charged what they were presumed to cost
    forgotten: int  # presumed ones whose tokens are counted no more
    presumed_tokens: int  # what the presumed ones were charged
    faults: int  # budget values and usage hashes that could not be changed
    has_more: bool = False  # overdue ones may be left
    spent_us: int = 0  # processor time of the script in the store
    rest_us: int = 0  # before which the store is not to be asked again; 0 where no ``most_us`` was given
    is_resting: bool = False  # nothing was done: others have settled just now


class Ledger:
    """The reservations of one cell."""

    def __init__(self, cell: str, rests_with: str | None = None) -> None:
        """``rests_with``: the cell by whose rest this one goes, where both are of one server; None: its own."""
        self._held, self._due = held_key(cell), due_key(cell)
        self._rest = rest_key(cell if rests_with is None else rests_with)

    def terms(self, execute: Execute, ids: Sequence[str]) -> list[bytes | None]:
        """Read what was written down when each call was admitted; ``None``: no such reservation. Raises its errors."""
        if not ids:
            return []
        return [_terms(record) for record in execute("HMGET", self._held, *ids)]

    def settle(
        self,
        execute: Execute,
        settlements: Sequence[Settlement],
        *,
        sweep: int = 100,
        most_us: int = 0,
        now_ms: int | None = None,
    ) -> Settled:
        """End these reservations, and up to ``sweep`` overdue ones. Nothing is ended twice, so it may be repeated.

        ``most_us``: how long the store may be kept; what does not fit is left, and while settling rests nothing is
        done at all (``Settled.rest_us``). 0: all is done, whatever it takes.
        ``now_ms``: the time to go by; None is the store's own clock, a number is for tests. Raises ``ValueError`` for
        a batch too large or malformed, and what ``execute`` raises.
        """
        _check(settlements, sweep)
        ends = [part for one in settlements for part in (one.id, one.tokens, int(one.is_told))]
        numbers = ("" if now_ms is None else now_ms, sweep, most_us)
        arguments = (3, self._held, self._due, self._rest, *numbers, *ends)
        try:
            reply = execute("EVALSHA", _SETTLE_SHA, *arguments)
        except NoScriptError:  # proves that nothing ran
            reply = execute("EVAL", _SETTLE, *arguments)
        now, letters, presumed, forgotten, tokens, faults, more, spent_us, rest_us = reply
        return Settled(
            now,
            tuple(_OUTCOMES[letter] for letter in letters),
            presumed,
            forgotten,
            tokens,
            faults,
            has_more=bool(more),
            spent_us=spent_us,
            rest_us=rest_us,
            is_resting=more == _RESTING,
        )


def _check(settlements: Sequence[Settlement], sweep: int) -> None:
    if max(len(settlements), sweep) > MAX_SETTLEMENTS or sweep < 0:
        raise ValueError(f"at most {MAX_SETTLEMENTS} settlements and 0..{MAX_SETTLEMENTS} overdue ones at once")
    for one in settlements:
        if one.tokens < 0:
            raise ValueError(f"tokens must not be negative: {one.tokens}")


def _terms(record: bytes | None) -> bytes | None:
    """The terms that a reservation begins with; empty where it cannot be read, which settling will tell."""
    if record is None or len(record) < _LENGTH.size:
        return record and b""
    (length,) = _LENGTH.unpack_from(record)
    return record[_LENGTH.size : _LENGTH.size + length]
