"""The token ledger: reservations that ``take.lua`` made are ended here, once. The only caller of ``lua/settle.lua``.

A reservation is made in the script that admits a call (``ratelimit.windows.limiter``, ``Draw.hold``) and ended by
whoever hears what the call cost, or by the sweep once it is overdue. Knows ids and costs; what an ending costs is
``ratelimit.tokens.costs``' business, and waiting and retrying that of whoever gives ``execute``. All of it may be
repeated.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.resources
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from ratelimit.names import due_key, held_key, old_rest_key, rest_key, run_key, usage_prefix
from ratelimit.tokens.reservations import kept_until_ms, written_terms
from ratelimit.windows.limiter import Execute

MAX_SETTLEMENTS: Final = 1_000
"""Most settlements, and most overdue reservations, of one script."""
TOKENS: Final = 1
"""The kind of units that a call is charged; the others are in take.lua's header."""

_LUA: Final = importlib.resources.files("ratelimit.tokens")
_PARTS: Final = ("lua/values.lua", "lua/reservations.lua", "lua/settle.lua")
_SETTLE: Final = b"".join(_LUA.joinpath(part).read_bytes() for part in _PARTS)
_SETTLE_SHA: Final = hashlib.sha1(_SETTLE, usedforsecurity=False).hexdigest()  # how the store names scripts
_RESTING: Final = 2
_HEAD: Final = struct.Struct("<ddBHdB")
_COST: Final = struct.Struct("<BBd")  # how many kinds, and the first of them: its number, units
_FURTHER: Final = struct.Struct("<Bd")
_SETTLED: Final = struct.Struct("<Hd")  # account, tokens
_PRESUMED: Final = struct.Struct("<Hdd")  # account, tokens, when it was admitted

Subjects = tuple[str, ...]
"""Whose usage a call counts in, its publication last."""


class Settlement(NamedTuple):
    """What a call turned out to cost."""

    id: str  # of its reservation
    tokens: int  # 0..10^9; more than the reservation's ceiling is charged as the ceiling
    is_told: bool = True  # by the proxy; False: nobody told, the call was never answered
    above: int = 0  # tokens of these that were not held, where its publication is to be warned of it
    usage: bool | None = None  # whether its answer told usage; None: there was none that could, or it was cut off
    further: tuple[tuple[int, int], ...] = ()  # other kinds and their units; what is not named cost nothing


class Outcome(enum.StrEnum):
    """What became of one settlement."""

    SETTLED = "settled"
    REPLACED = "replaced"  # it came late: what had been presumed was put right, as far as it is still counted
    UNKNOWN = "unknown"  # no such reservation: never made, settled before, or forgotten; nothing changed
    CORRUPT = "corrupt"  # the reservation could not be read; it is gone, its tokens stay counted


DONE: Final = frozenset({Outcome.SETTLED, Outcome.REPLACED})
"""The outcomes of settlements that charged."""
_OUTCOMES: Final = {
    ord("S"): Outcome.SETTLED,
    ord("L"): Outcome.REPLACED,
    ord("U"): Outcome.UNKNOWN,
    ord("C"): Outcome.CORRUPT,
}


class Used(NamedTuple):
    """What one ended call adds to usage."""

    subjects: Subjects
    tokens: int  # below 0: it had been presumed to cost more


class Presumed(NamedTuple):
    """What one presumed call adds to usage."""

    subjects: Subjects
    tokens: int
    admitted_ms: float


class Settled(NamedTuple):
    """The script's reply."""

    now_ms: int  # the store's clock in the script
    outcomes: tuple[Outcome, ...]  # one for each settlement that was looked at, in order: all, unless time ran out
    presumed: int  # overdue reservations that were charged what they were presumed to cost
    forgotten: int  # presumed ones whose tokens are counted no more
    presumed_tokens: int  # what the presumed ones were charged
    faults: int  # budget values that could not be changed
    has_more: bool = False  # overdue ones may be left
    spent_us: int = 0  # processor time of the script in the store
    rest_us: int = 0  # before which the store is not to be asked again; 0 where no ``most_us`` was given
    is_resting: bool = False  # nothing was done: others have settled just now
    used: tuple[Used, ...] = ()  # of those that were settled or replaced, in order
    used_presumed: tuple[Presumed, ...] = ()  # of those that were presumed


class Run(NamedTuple):
    """One run of the script among those of a gate."""

    number: int
    is_again: bool = False  # it was sent before, and not answered


class Ledger:
    """The reservations of one cell."""

    def __init__(self, cell: str, rests_with: str | None = None, *, gate: str = "") -> None:
        """``rests_with``: the cell by whose rest this one goes, where both are of one server; None: its own.

        ``gate``: tells the gates apart whose runs may have to be told again.
        """
        self._held = held_key(cell)
        rests_with = cell if rests_with is None else rests_with
        rests = (rest_key(rests_with), old_rest_key(rests_with))
        self._keys = (5, self._held, due_key(cell), *rests, run_key(cell, gate))
        self._usage_prefix = usage_prefix(cell)

    def terms(self, execute: Execute, ids: Sequence[str]) -> list[bytes | None]:
        """Read what was written down when each call was admitted; ``None``: no such reservation. Raises its errors."""
        if not ids:
            return []
        return [None if record is None else written_terms(record) for record in execute("HMGET", self._held, *ids)]

    def kept_until_ms(self, execute: Execute, id: str) -> int | None:  # noqa: A002  as elsewhere here
        """When a reservation is forgotten, by the store's clock, if nobody settles it; ``None``: it is not there."""
        record = execute("HGET", self._held, id)
        return None if record is None else kept_until_ms(record)

    def settle(
        self,
        execute: Execute,
        settlements: Sequence[Settlement],
        *,
        sweep: int = 100,
        most_us: int = 0,
        now_ms: int | None = None,
        format: int = 1,  # noqa: A002  as it is called everywhere
        run: Run | None = None,
    ) -> Settled:
        """End these reservations, and up to ``sweep`` overdue ones. Nothing is ended twice, so it may be repeated.

        ``most_us``: how long the store may be kept; what does not fit is left, and while settling rests nothing is
        done at all (``Settled.rest_us``). 0: all is done, whatever it takes.
        ``now_ms``: the time to go by; None is the store's own clock, a number is for tests.
        ``format``: of a budget value that has to be made; what is there keeps its format.
        ``run``: which of this gate's it is; one that was not answered is sent again, with the same settlements, and
        says what it did. Raises ``ValueError`` for a batch too large or malformed, and what ``execute`` raises.
        """
        _check(settlements, sweep)
        head = _HEAD.pack(-1 if now_ms is None else now_ms, most_us, format, sweep, *(run or (0, False)))
        costs = b"".join([_cost(one) for one in settlements])
        arguments = (*self._keys, head, costs, *(one.id for one in settlements))
        try:
            reply = execute("EVALSHA", _SETTLE_SHA, *arguments)
        except NoScriptError:  # proves that nothing ran
            reply = execute("EVAL", _SETTLE, *arguments)
        return self._read(reply)

    def _read(self, reply: Sequence[Any]) -> Settled:
        now_ms, letters, presumed, forgotten, tokens, faults, more, spent_us, rest_us, names, settled, swept = reply
        accounts = [tuple(self._subjects(one)) for one in names]
        return Settled(
            now_ms,
            tuple([_OUTCOMES[letter] for letter in letters]),
            presumed,
            forgotten,
            tokens,
            faults,
            has_more=bool(more),
            spent_us=spent_us,
            rest_us=rest_us,
            is_resting=more == _RESTING,
            used=tuple([Used(accounts[number - 1], int(used)) for number, used in _SETTLED.iter_unpack(settled)]),
            used_presumed=tuple(
                [Presumed(accounts[number - 1], int(used), at) for number, used, at in _PRESUMED.iter_unpack(swept)]
            ),
        )

    def _subjects(self, names: bytes) -> Iterable[str]:
        """Names of subjects; reservations of format 1 name their usage hashes."""
        at = 1
        for _ in range(names[0]):
            after = at + 1 + names[at]
            yield names[at + 1 : after].decode(errors="replace").removeprefix(self._usage_prefix)
            at = after


def _cost(one: Settlement) -> bytes:
    cost = _COST.pack(1 + len(one.further), TOKENS, one.tokens)
    return cost + b"".join(_FURTHER.pack(*each) for each in one.further) if one.further else cost


def _check(settlements: Sequence[Settlement], sweep: int) -> None:
    if max(len(settlements), sweep) > MAX_SETTLEMENTS or sweep < 0:
        raise ValueError(f"at most {MAX_SETTLEMENTS} settlements and 0..{MAX_SETTLEMENTS} overdue ones at once")
    for one in settlements:
        if one.tokens < 0:
            raise ValueError(f"tokens must not be negative: {one.tokens}")
