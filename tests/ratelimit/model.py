"""The limiter as plain as it can be said: every unit kept with its bucket, every answer by looking at all of them.

No code is shared with the script or the product: this file and ``tests/tables/sliding_window.py`` are the
specification that ``lua/take.lua`` must agree with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ratelimit.budgets import Answer, Budget, BudgetState, Charge, Grant, Subject, WindowShape

Held = Counter[int]  # bucket -> units


@dataclass
class Model:
    """All subjects of a store."""

    held: dict[str, dict[WindowShape, Held]] = field(default_factory=dict)

    def take(self, charges: Sequence[Charge], now_ms: int) -> list[Grant]:
        """Decide the charges one after another at one instant."""
        return [self._decide(charge, now_ms) for charge in charges]

    def clock_steps(self, charges: Sequence[Charge], now_ms: int) -> int:
        """How many windows of these charges hold a bucket that lies ahead of the clock."""
        asked = {(s.name, budget.window.value) for c in charges for s in c.subjects for budget in s.budgets}
        return sum(max(self._window(name, shape), default=0) > now_ms // shape.bucket_ms for name, shape in asked)

    def _window(self, name: str, shape: WindowShape) -> Held:
        return self.held.get(name, {}).get(shape, Counter())

    def _decide(self, charge: Charge, now_ms: int) -> Grant:
        if 0 < charge.valid_until_ms <= now_ms:
            return Grant(Answer.EXPIRED)
        states = self._states(charge, now_ms)
        never = [state for state, cost in zip(states, _costs(charge), strict=True) if cost > state.budget.limit]
        if never:
            return Grant(Answer.NEVER_FITS, states, never[0])
        if self._fits(charge, now_ms):
            for subject in charge.subjects:
                self._count(subject, charge, now_ms)
            return Grant(Answer.ADMITTED, self._states(charge, now_ms))
        return self._refusal(charge, now_ms)

    def _fits(self, charge: Charge, now_ms: int) -> bool:
        """What costs nothing is not refused, however full the budget is."""
        return all(
            cost == 0
            or _counted(self._window(subject.name, budget.window.value), budget.window.value, now_ms) + cost
            <= budget.limit
            for (subject, budget), cost in zip(_budgets(charge), _costs(charge), strict=True)
        )

    def _count(self, subject: Subject, charge: Charge, now_ms: int) -> None:
        """A write keeps what is counted, of windows that have a limit now; where nothing is taken, none is made."""
        costs = [_cost(charge, subject, budget) for budget in subject.budgets]
        if not any(costs):
            return
        kept: dict[WindowShape, Held] = {}
        for budget, cost in zip(subject.budgets, costs, strict=True):
            shape = budget.window.value
            held = self._window(subject.name, shape)
            current = _current(held, shape, now_ms)
            kept[shape] = Counter({bucket: units for bucket, units in held.items() if bucket >= current - shape.n})
            if cost:
                kept[shape][current] += cost
        self.held[subject.name] = kept

    def _refusal(self, charge: Charge, now_ms: int) -> Grant:
        states = self._states(charge, now_ms)
        times = [
            self._fits_at(subject, budget, cost, now_ms)
            for (subject, budget), cost in zip(_budgets(charge), _costs(charge), strict=True)
        ]
        latest = max(times)
        return Grant(Answer.REFUSED, states, states[times.index(latest)], latest)

    def _fits_at(self, subject: Subject, budget: Budget, cost: int, now_ms: int) -> int:
        """The first instant at which the cost fits this budget: now, or when some bucket is released."""
        if cost == 0:
            return now_ms
        shape = budget.window.value
        held = self._window(subject.name, shape)
        instants = [now_ms, *sorted((bucket + shape.n + 1) * shape.bucket_ms for bucket in held)]
        return next(at for at in instants if at >= now_ms and _counted(held, shape, at) + cost <= budget.limit)

    def _states(self, charge: Charge, now_ms: int) -> tuple[BudgetState, ...]:
        return tuple(self._state(subject, budget, now_ms) for subject, budget in _budgets(charge))

    def _state(self, subject: Subject, budget: Budget, now_ms: int) -> BudgetState:
        shape = budget.window.value
        held = self._window(subject.name, shape)
        counted = _counted(held, shape, now_ms)
        reset_ms = (max(held) + shape.n + 1) * shape.bucket_ms if counted else 0
        return BudgetState(subject, budget, max(0, budget.limit - counted), reset_ms)


def _budgets(charge: Charge) -> Iterator[tuple[Subject, Budget]]:
    return ((subject, budget) for subject in charge.subjects for budget in subject.budgets)


def _costs(charge: Charge) -> list[int]:
    return [_cost(charge, subject, budget) for subject, budget in _budgets(charge)]


def _cost(charge: Charge, subject: Subject, budget: Budget) -> int:
    """What the charge asks of one budget: its tokens, or its subject's own cost, or its cost."""
    if budget.window.value.counts_tokens:
        return charge.tokens
    return charge.costs[charge.subjects.index(subject)] if charge.costs else charge.cost


def _current(held: Held, shape: WindowShape, now_ms: int) -> int:
    """The clock's bucket, or the newest that holds units where the clock has been set back."""
    return max([now_ms // shape.bucket_ms, *held])


def _counted(held: Held, shape: WindowShape, now_ms: int) -> int:
    """Units of the current bucket and the ``n`` before it."""
    oldest = _current(held, shape, now_ms) - shape.n
    return sum(units for bucket, units in held.items() if bucket >= oldest)
