"""The limiter as plain as it can be said: every unit kept with its bucket, every answer by looking at all of them.

No code is shared with the script or the product: this file and ``tests/tables/sliding_window.py`` are the
specification that ``lua/take.lua`` must agree with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit.windows.budgets import Answer, Budget, BudgetState, Charge, Grant, Subject, WindowShape

HELD_RETRY_MS = 1_000
BUCKET_UNITS = 4 * 10**9  # most units of one bucket
Held = Counter[int]  # bucket -> units


class Part(NamedTuple):
    """What a reservation holds in one budget, and in which bucket."""

    name: str
    shape: WindowShape
    bucket: int
    units: int

    @property
    def release_ms(self) -> int:
        """When its bucket is counted no more."""
        return (self.bucket + self.shape.n + 1) * self.shape.bucket_ms


@dataclass
class Model:
    """All subjects of a store."""

    held: dict[str, dict[WindowShape, Held]] = field(default_factory=dict)
    unsettled: dict[str, dict[WindowShape, Held]] = field(default_factory=dict)  # of these, what reservations hold
    reservations: dict[str, list[Part]] = field(default_factory=dict)

    def take(self, charges: Sequence[Charge], now_ms: int) -> list[Grant]:
        """Decide the charges one after another at one instant."""
        return [self._decide(charge, now_ms) for charge in charges]

    def settle(self, reservation: str, tokens: int, now_ms: int) -> None:
        """End a reservation, if it is one: its buckets have what it cost, and nothing is held any more."""
        parts = self.reservations.pop(reservation, [])
        if max([part.release_ms for part in parts], default=0) <= now_ms:
            return
        for part in parts:
            _change(self.held, part, tokens - part.units)
            _change(self.unsettled, part, -part.units)

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
        never = [
            state
            for state, cost in zip(states, _costs(charge), strict=True)
            if cost > state.budget.limit and not state.subject.is_shadow
        ]
        if never:
            return Grant(Answer.NEVER_FITS, states, never[0])
        if self._fits(charge, now_ms):
            for subject in charge.subjects:
                self._count(subject, charge, now_ms)
            if charge.hold:
                self.reservations[charge.hold.id] = list(self._parts(charge, now_ms))
            return Grant(Answer.ADMITTED, self._states(charge, now_ms))
        return self._refusal(charge, now_ms)

    def _fits(self, charge: Charge, now_ms: int) -> bool:
        """What costs nothing is not refused, however full the budget is; nothing is in shadow mode."""
        return all(
            cost == 0
            or subject.is_shadow
            or _counted(self._window(subject.name, budget.window.value), budget.window.value, now_ms) + cost
            <= budget.limit
            for (subject, budget), cost in zip(_budgets(charge), _costs(charge), strict=True)
        )

    def _parts(self, charge: Charge, now_ms: int) -> Iterator[Part]:
        for subject, budget in _budgets(charge):
            shape = budget.window.value
            if shape.counts_tokens:
                held = self._window(subject.name, shape)
                yield Part(subject.name, shape, _current(held, shape, now_ms), charge.tokens)

    def _count(self, subject: Subject, charge: Charge, now_ms: int) -> None:
        """A write keeps what is counted, of windows that have a limit now; where nothing is taken, none is made."""
        costs = [self._counted_cost(charge, subject, budget, now_ms) for budget in subject.budgets]
        if not any(costs):
            return
        kept: dict[WindowShape, Held] = {}
        unsettled: dict[WindowShape, Held] = {}
        for budget, cost in zip(subject.budgets, costs, strict=True):
            shape = budget.window.value
            held = self._window(subject.name, shape)
            current = _current(held, shape, now_ms)
            kept[shape] = _since(current - shape.n, held)
            unsettled[shape] = _since(current - shape.n, self._unsettled(subject.name, shape))
            if cost:
                kept[shape][current] += cost
            if cost and charge.hold and shape.counts_tokens:
                unsettled[shape][current] += cost
        self.held[subject.name] = kept
        self.unsettled[subject.name] = unsettled

    def _counted_cost(self, charge: Charge, subject: Subject, budget: Budget, now_ms: int) -> int:
        """What is counted of an admitted call: in shadow mode only what fits."""
        cost, shape = _cost(charge, subject, budget), budget.window.value
        fits = _counted(self._window(subject.name, shape), shape, now_ms) + cost <= budget.limit
        return cost if fits or not subject.is_shadow else 0

    def _unsettled(self, name: str, shape: WindowShape) -> Held:
        return self.unsettled.get(name, {}).get(shape, Counter())

    def _refusal(self, charge: Charge, now_ms: int) -> Grant:
        states = self._states(charge, now_ms)
        waits = [
            self._wait(subject, budget, cost, now_ms)
            for (subject, budget), cost in zip(_budgets(charge), _costs(charge), strict=True)
        ]
        times = [at for at, _ in waits]
        latest = times.index(max(times))
        return Grant(Answer.REFUSED, states, states[latest], *waits[latest])

    def _wait(self, subject: Subject, budget: Budget, cost: int, now_ms: int) -> tuple[int, int]:
        """When the cost fits; a second from now, and what is held, where it fitted if only what is spent counted."""
        if subject.is_shadow:
            return 0, 0
        shape, fits_at = budget.window.value, self._fits_at(subject, budget, cost, now_ms)
        held = self._window(subject.name, shape)
        unsettled = _since(_current(held, shape, now_ms) - shape.n, self._unsettled(subject.name, shape)).total()
        spent = _counted(held, shape, now_ms) - unsettled
        if fits_at > now_ms + HELD_RETRY_MS and spent + cost <= budget.limit:
            return now_ms + HELD_RETRY_MS, unsettled
        return fits_at, 0

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


def _change(all_held: dict[str, dict[WindowShape, Held]], part: Part, units: int) -> None:
    """Change a bucket that is still counted, to nothing at least and to what one can hold at most."""
    name, shape, bucket, _ = part
    held = all_held.setdefault(name, {}).setdefault(shape, Counter())
    if bucket >= max(held, default=0) - shape.n:
        held[bucket] = min(BUCKET_UNITS, max(0, held[bucket] + units))
    all_held[name][shape] = +held


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


def _since(oldest: int, held: Held) -> Held:
    """The units of this bucket and of later ones."""
    return Counter({bucket: units for bucket, units in held.items() if bucket >= oldest})


def _counted(held: Held, shape: WindowShape, now_ms: int) -> int:
    """Units of the current bucket and the ``n`` before it."""
    return _since(_current(held, shape, now_ms) - shape.n, held).total()
