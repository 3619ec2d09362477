"""The reply of ``take.lua`` as grants: replays the batch from the totals it began with. Pure.

The script says who was admitted; what each call left behind follows from the totals before the batch, so the
store does not have to send it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ratelimit.windows.budgets import Answer, Budget, BudgetState, Charge, Fence, Grant, Subject, Taken, WindowShape
from ratelimit.windows.packing import Batch
from ratelimit.windows.window import bucket_of, release_ms

_FENCES: Final = {b"P": Fence.PASSED, b"S": Fence.STALE, b"L": Fence.LATE}
_ADMITTED: Final = ord("A")
_REFUSED: Final = {ord("R"): Answer.REFUSED, ord("N"): Answer.NEVER_FITS}
_UNDECIDED: Final = {
    ord("E"): Grant(Answer.EXPIRED),
    ord("S"): Grant(Answer.STALE),
    ord("C"): Grant(Answer.CORRUPT),
}


class _Tally:
    """A window's units while the batch is replayed."""

    __slots__ = ("reset_ms", "reset_used_ms", "total")

    def __init__(self, total: int, reset_ms: int, reset_used_ms: int) -> None:
        self.total = total
        self.reset_ms = reset_ms  # whole again if the batch admits nothing more
        self.reset_used_ms = reset_used_ms  # whole again once the batch has admitted something


_Row = tuple[Subject, Budget, int, _Tally]  # a budget of a plan, its limit at hand


def read_reply(batch: Batch, reply: Sequence[Any]) -> Taken:
    """Turn the script's reply to this batch into what the callers are told."""
    fence, epoch, now_ms = _FENCES[reply[0]], reply[1].decode(), reply[2]
    if fence is not Fence.PASSED:
        return Taken(fence, epoch, now_ms, ())
    steps, faults, spent_us, answers, tallies, refusals = reply[3:]
    plans = _rows(batch, tallies, now_ms)
    grants = tuple(_grants(batch, plans, answers, iter(refusals)))
    return Taken(fence, epoch, now_ms, grants, spent_us=spent_us, clock_steps=steps, usage_faults=faults)


def _rows(batch: Batch, tallies: Sequence[int], now_ms: int) -> list[list[_Row]]:
    """The budgets of every plan, in order; plans of one subject share the tallies of their windows."""
    shared: dict[tuple[str, int], _Tally] | None = {} if len(batch.values) < len(batch.plans) else None
    numbers = iter(tallies)
    plans: list[list[_Row]] = []
    for subject in batch.plans:
        rows: list[_Row] = []
        for budget in subject.budgets:
            tally = _tally(budget.shape, next(numbers), next(numbers), now_ms)
            if shared is not None:
                tally = shared.setdefault((subject.name, budget.shape.id), tally)
            rows.append((subject, budget, budget.limit, tally))
        plans.append(rows)
    return plans


def _tally(shape: WindowShape, total: int, newest: int, now_ms: int) -> _Tally:
    current = bucket_of(now_ms, shape)
    reset_used_ms = release_ms(max(current, newest), shape)
    return _Tally(total, release_ms(newest, shape) if total else 0, reset_used_ms)


def _grants(batch: Batch, plans: list[list[_Row]], answers: bytes, refusals: Iterator[int]) -> Iterator[Grant]:
    for charge, asked, answer in zip(batch.charges, batch.asked, answers, strict=True):
        rows = [row for number in asked for row in plans[number - 1]]
        if answer == _ADMITTED:
            yield _admitted(charge, rows)
        elif answer in _REFUSED:
            yield _refused(_REFUSED[answer], rows, next(refusals), next(refusals), next(refusals))
        else:
            yield _UNDECIDED[answer]


def _admitted(charge: Charge, rows: list[_Row]) -> Grant:
    own_cost, tokens = charge.cost, charge.tokens
    costs = _costs(charge) if charge.costs else None
    states: list[BudgetState] = []
    for subject, budget, limit, tally in rows:
        cost = tokens if budget.shape.counts_tokens else costs[subject] if costs else own_cost
        if cost and not (subject.is_shadow and tally.total + cost > limit):
            tally.total += cost
            tally.reset_ms = tally.reset_used_ms
        states.append(BudgetState(subject, budget, max(0, limit - tally.total), tally.reset_ms))
    return Grant(Answer.ADMITTED, tuple(states))


def _costs(charge: Charge) -> dict[Subject, int]:
    return dict(zip(charge.subjects, charge.costs, strict=True))


def _refused(answer: Answer, rows: list[_Row], place: int, retry_at_ms: int, held: int) -> Grant:
    states = tuple(
        BudgetState(subject, budget, max(0, limit - tally.total), tally.reset_ms)
        for subject, budget, limit, tally in rows
    )
    return Grant(answer, states, states[place - 1], retry_at_ms, held)
