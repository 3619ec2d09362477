"""Draws and grants in one line, for tests that keep no charge."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.windows.budgets import Answer, Budget, BudgetState, Charge, Draw, Grant, Hold, Subject


def draw(
    subjects: tuple[Subject, ...],
    hits: int | tuple[int, ...] = 1,
    *,
    tokens: int = 0,
    hold: Hold | None = None,
    valid_until_ms: int = 0,
    refs: tuple[str, ...] = (),
    usage: tuple[str, ...] = (),
    more: tuple[int, int, int, int] | None = None,
) -> Draw:
    """One call of a charge of its own."""
    return Draw(Charge(subjects, valid_until_ms=valid_until_ms, refs=refs, usage=usage), hits, tokens, hold, more)


def granted(
    answer: Answer, states: Sequence[BudgetState] = (), place: int = 0, retry_at_ms: int = 0, held: int = 0
) -> Grant:
    """What a call is told whose budgets are left in these states; ``place``: of the one that refused it, from 1."""
    budgets: dict[str, list[Budget]] = {}
    for state in states:
        budgets.setdefault(state.subject.name, []).append(state.budget)
    charge = Charge(tuple(Subject(name, tuple(own)) for name, own in budgets.items()))
    numbers = [number for state in states for number in (state.budget.limit - state.remaining, state.reset_at_ms)]
    return Grant(answer, Draw(charge), tuple(numbers), place, retry_at_ms, held)
