"""The deny cache: who asks again what was refused a moment ago gets the same answer, and the script is not run. Pure.

A full budget of calls stays full until the moment that its refusal named, because units of calls are never given back.
How long to wait follows from all budgets of a call, of which another may be full for longer; so an entry is kept for
the very budgets that were asked together, and goes when one of them admits. Tokens are given back: a refusal by a token
budget is not kept, and a call whose tokens did not fit is asked about again.

Whether the records behind an entry are still in force is not known here: ``extauth.batch`` has the epoch proved, as
for every refusal. For one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ratelimit.windows.budgets import MAX_UNITS, Answer, BudgetState, Draw, Grant, Taken
from runtime.store.offset import ClockOffset

LIFE_MS: Final = 1_000
"""How long a refusal is repeated at most: another gate may meanwhile have filled a budget that is full for longer."""
MAX_ENTRIES: Final = 10_000
"""Refusals kept, about 1 KiB each; beyond it the oldest go first."""
MAX_ADMITTED: Final = 10_000
"""Subjects noted as having admitted since; beyond it everything is forgotten."""

_Key = tuple[object, ...]  # cell, hits and names of the subjects


@dataclass(slots=True, eq=False)
class Denied:
    """An answer that still holds: the same object for all who ask within one millisecond."""

    grant: Grant
    now_ms: int  # the store's clock, never ahead of it
    told: dict[object, object] = field(default_factory=dict)  # what was made of it, by what it was made for


@dataclass(slots=True)
class _Entry:
    epoch: str  # of the records that the refused call was decided on
    grant: Grant
    until_ms: float  # on the monotonic clock
    turn: int
    tokens_free: int  # what a call may cost so that its tokens are not what refuses it
    denied: Denied | None = None  # as it was told last


class Denials:
    """The refusals of the last second."""

    def __init__(self, monotonic_ms: Callable[[], float], offset_of: Callable[[int], ClockOffset]) -> None:
        self._monotonic_ms = monotonic_ms
        self._offset_of = offset_of  # the store's clock, by cell
        self._entries: dict[_Key, _Entry] = {}  # the oldest first
        self._admitted: dict[str, int] = {}  # subject -> the turn in which it last admitted, while there are entries
        self._turn = 0

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, cell: int, draw: Draw, epoch: str) -> Denied | None:
        """Tell what the store would answer, where that is known: the draw was refused a moment ago.

        ``epoch``: of the records that its charge was decided on.
        """
        entry = self._entries.get(_key(cell, draw)) if self._entries else None
        if entry is None or entry.epoch != epoch or draw.tokens > entry.tokens_free:
            return None
        if self._admitted and self._has_admitted(draw, entry.turn):
            return None
        local_ms, offset = self._monotonic_ms(), self._offset_of(cell)
        latest_ms = offset.latest_on_store_ms(local_ms)
        if local_ms >= entry.until_ms or latest_ms >= entry.grant.retry_at_ms:
            return None
        if 0 < draw.charge.valid_until_ms <= latest_ms:
            return None
        now_ms = offset.deadline_on_store_ms(local_ms)
        if entry.denied is None or entry.denied.now_ms != now_ms:
            entry.denied = Denied(_aged(entry.grant, now_ms), now_ms)
        return entry.denied

    def _has_admitted(self, draw: Draw, turn: int) -> bool:
        """Whether one of these subjects has admitted a call since."""
        return any(self._admitted.get(subject.name, 0) > turn for subject in draw.charge.subjects)

    def note(self, cell: int, draws: Sequence[Draw], taken: Taken, epoch: str) -> None:
        """Take in what the store answered, in order; ``epoch``: of the records, which was found to be in force."""
        local_ms = self._monotonic_ms()
        self._drop_old(local_ms)
        for draw, grant in zip(draws, taken.grants, strict=True):
            if grant.answer is Answer.REFUSED:
                self._keep(_key(cell, draw), epoch, grant, local_ms)
            elif self._entries and grant.answer is Answer.ADMITTED:
                self._turn += 1
                self._admitted.update(dict.fromkeys([subject.name for subject in draw.charge.subjects], self._turn))

    def _keep(self, key: _Key, epoch: str, grant: Grant, local_ms: float) -> None:
        self._entries.pop(key, None)
        refused_by = grant.refused_by
        if refused_by is not None and not _counts_tokens(refused_by):
            self._turn += 1
            self._entries[key] = _Entry(epoch, grant, local_ms + LIFE_MS, self._turn, _tokens_free(grant))

    def _drop_old(self, local_ms: float) -> None:
        """Forget what has had its time, and what is too much."""
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].until_ms > local_ms and len(self._entries) <= MAX_ENTRIES:
                break
            del self._entries[oldest]
        if len(self._admitted) > MAX_ADMITTED:
            self._entries.clear()
        if not self._entries:
            self._admitted.clear()


def _key(cell: int, draw: Draw) -> _Key:
    """Name the budgets and what they are asked; at one epoch a subject's name stands for its limits too."""
    return (cell, draw.hits, *[subject.name for subject in draw.charge.subjects])


def _counts_tokens(state: BudgetState) -> bool:
    return state.budget.shape.counts_tokens


def _tokens_free(grant: Grant) -> int:
    return min([state.remaining for state in grant.states if _counts_tokens(state)], default=MAX_UNITS)


def _aged(grant: Grant, now_ms: int) -> Grant:
    """Bring a refusal to the present: budgets that are whole again by now are told as whole."""
    if not any(0 < reset_ms <= now_ms for reset_ms in grant.numbers[1::2]):
        return grant
    pairs = zip(grant.numbers[::2], grant.numbers[1::2], strict=True)
    aged = [(total, reset_ms) if reset_ms > now_ms else (0, 0) for total, reset_ms in pairs]
    return grant._replace(numbers=tuple(number for pair in aged for number in pair))
