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
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ratelimit.windows.budgets import MAX_UNITS, Answer, BudgetState, Charge, Grant, Taken
from runtime.store.offset import ClockOffset

LIFE_MS: Final = 1_000
"""How long a refusal is repeated at most: another gate may meanwhile have filled a budget that is full for longer."""
MAX_ENTRIES: Final = 10_000
"""Refusals kept, about 1 KiB each; beyond it the oldest go first."""
MAX_ADMITTED: Final = 10_000
"""Subjects noted as having admitted since; beyond it everything is forgotten."""

_Key = tuple[object, ...]  # cell, costs and names of the subjects


class Denied(NamedTuple):
    """An answer that still holds."""

    grant: Grant
    now_ms: int  # the store's clock, never ahead of it


@dataclass(frozen=True, slots=True)
class _Entry:
    epoch: str  # of the records that the refused call was decided on
    grant: Grant
    until_ms: float  # on the monotonic clock
    turn: int
    tokens_free: int  # what a call may cost so that its tokens are not what refuses it


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

    def look(self, cell: int, charge: Charge, epoch: str) -> Denied | None:
        """Tell what the store would answer, where that is known: the charge was refused a moment ago.

        ``epoch``: of the records that the charge was decided on.
        """
        entry = self._entries.get(_key(cell, charge)) if self._entries else None
        if entry is None or entry.epoch != epoch or charge.tokens > entry.tokens_free:
            return None
        if any(self._admitted.get(subject.name, 0) > entry.turn for subject in charge.subjects):
            return None
        local_ms = self._monotonic_ms()
        latest_ms = self._offset_of(cell).latest_on_store_ms(local_ms)
        if local_ms >= entry.until_ms or latest_ms >= entry.grant.retry_at_ms or 0 < charge.valid_until_ms <= latest_ms:
            return None
        now_ms = self._offset_of(cell).deadline_on_store_ms(local_ms)
        return Denied(_aged(entry.grant, now_ms), now_ms)

    def note(self, cell: int, charges: Sequence[Charge], taken: Taken, epoch: str) -> None:
        """Take in what the store answered, in order; ``epoch``: of the records, which was found to be in force."""
        local_ms = self._monotonic_ms()
        self._drop_old(local_ms)
        for charge, grant in zip(charges, taken.grants, strict=True):
            if grant.answer is Answer.REFUSED:
                self._keep(_key(cell, charge), epoch, grant, local_ms)
            elif self._entries and grant.answer is Answer.ADMITTED:
                self._turn += 1
                self._admitted.update(dict.fromkeys([subject.name for subject in charge.subjects], self._turn))

    def _keep(self, key: _Key, epoch: str, grant: Grant, local_ms: float) -> None:
        self._entries.pop(key, None)
        if grant.refused_by is not None and not _counts_tokens(grant.refused_by):
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


def _key(cell: int, charge: Charge) -> _Key:
    """Name the budgets and what they are asked; at one epoch a subject's name stands for its limits too."""
    return (cell, charge.cost, charge.costs, *[subject.name for subject in charge.subjects])


def _counts_tokens(state: BudgetState) -> bool:
    return state.budget.shape.counts_tokens


def _tokens_free(grant: Grant) -> int:
    return min([state.remaining for state in grant.states if _counts_tokens(state)], default=MAX_UNITS)


def _aged(grant: Grant, now_ms: int) -> Grant:
    """Bring a refusal to the present: budgets that are whole again by now are told as whole."""
    if not any(0 < state.reset_at_ms <= now_ms for state in grant.states):
        return grant
    states = tuple(
        state._replace(remaining=state.budget.limit, reset_at_ms=0) if state.reset_at_ms <= now_ms else state
        for state in grant.states
    )
    return replace(grant, states=states)
