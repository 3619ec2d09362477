"""The limiter as plain as it can be said: every unit kept with its bucket, every answer by looking at all of them.

No code is shared with the script or the product: this file and ``tests/tables/sliding_window.py`` are the
specification that ``lua/take.lua`` must agree with.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit.windows.budgets import Answer, Budget, Draw, Grant, Kind, Subject, Window, WindowShape

HELD_RETRY_MS = 1_200
BUCKET_UNITS = {1: 4 * 10**9, 2: 10**13 - 1}  # most units of one bucket, by stored format
Held = Counter[int]  # bucket -> units
DAY_MS = 86_400_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MONTH = Window.UTC_MONTH.value.span
_NOTHING: Held = Counter()  # of a window that counts nothing; it stays so


def bucket_at(shape: WindowShape, now_ms: int) -> int:
    """The bucket of an instant; of a month, how many began since 1970."""
    if shape.span is MONTH:
        now = EPOCH + dt.timedelta(milliseconds=now_ms)
        return now.year * 12 + now.month - 1970 * 12 - 1
    return now_ms // shape.bucket_ms


def release_of(shape: WindowShape, bucket: int) -> int:
    """The instant at which a bucket is counted no more."""
    if shape.span is MONTH:
        end = dt.datetime(1970 + (bucket + 1) // 12, (bucket + 1) % 12 + 1, 1, tzinfo=dt.UTC)
        return (end - EPOCH) // dt.timedelta(milliseconds=1)
    return (bucket + shape.n + 1) * shape.bucket_ms


class Part(NamedTuple):
    """What a reservation holds in one budget, and in which bucket."""

    name: str
    shape: WindowShape
    bucket: int
    units: int


@dataclass
class Model:
    """All subjects of a store, of which what is held is kept by buckets in format 1, as one number in format 2."""

    format: int = 1
    held: dict[str, dict[WindowShape, Held]] = field(default_factory=dict)
    unsettled: dict[str, dict[WindowShape, Held]] = field(default_factory=dict)  # of these, what reservations hold
    reservations: dict[str, list[Part]] = field(default_factory=dict)

    def take(self, draws: Sequence[Draw], now_ms: int) -> list[Grant]:
        """Decide the draws one after another at one instant."""
        return [self._decide(draw, now_ms) for draw in draws]

    def settle(self, ended: Sequence[tuple[str, int]]) -> None:
        """End these reservations, as far as they are any: their buckets have what they cost, and nothing is held.

        Kinds other than tokens cost nothing. What comes together changes a bucket once.
        """
        units: Counter[tuple[str, WindowShape, int]] = Counter()
        freed: Counter[tuple[str, WindowShape, int]] = Counter()
        for reservation, tokens in ended:
            for part in self.reservations.pop(reservation, []):
                place = (part.name, part.shape, part.bucket)
                units[place] += (tokens if part.shape.kind is Kind.TOKENS else 0) - part.units
                freed[place] -= part.units
        for place, change in units.items():
            self._change(self.held, *place, change)
        for place, change in freed.items():
            if self.format == 1:
                self._free(*place, -change)
            else:
                self._give_back(*place[:2], change)

    def _free(self, name: str, shape: WindowShape, bucket: int, units: int) -> None:
        """Hold so much less in a bucket that is still counted, and what it does not hold in the newest ones."""
        held = self._unsettled(name, shape)
        if bucket < max(self._window(name, shape), default=0) - shape.n:
            return
        for place in (bucket, *sorted(held, reverse=True)):
            freed = min(units, held[place])
            held[place] -= freed
            units -= freed

    def _give_back(self, name: str, shape: WindowShape, change: int) -> None:
        """Hold so much less of a window, and never more than it counts."""
        left = self._unsettled(name, shape).total() + change
        counted = self._window(name, shape).total()
        if name in self.unsettled:
            self.unsettled[name][shape] = Counter({0: min(counted, max(0, left))})

    def _change(
        self, all_held: dict[str, dict[WindowShape, Held]], name: str, shape: WindowShape, bucket: int, units: int
    ) -> None:
        """Change a bucket that is still counted, to nothing at least and to what one can hold at most."""
        held = all_held.setdefault(name, {}).setdefault(shape, Counter())
        if bucket >= max(held, default=0) - shape.n:
            held[bucket] = min(BUCKET_UNITS[self.format], max(0, held[bucket] + units))
        all_held[name][shape] = +held

    def clock_steps(self, draws: Sequence[Draw], now_ms: int) -> int:
        """How many windows of these draws hold a bucket that lies ahead of the clock."""
        asked = {(s.name, budget.shape) for draw in draws for s in draw.charge.subjects for budget in s.budgets}
        return sum(max(self._window(name, shape), default=0) > bucket_at(shape, now_ms) for name, shape in asked)

    def _window(self, name: str, shape: WindowShape) -> Held:
        windows = self.held.get(name)
        return (windows and windows.get(shape)) or _NOTHING

    def _decide(self, draw: Draw, now_ms: int) -> Grant:
        if 0 < draw.charge.valid_until_ms <= now_ms:
            return Grant(Answer.EXPIRED, draw)
        never = [
            place
            for place, ((subject, budget), cost) in enumerate(zip(_budgets(draw), _costs(draw), strict=True))
            if cost > budget.limit and not subject.is_shadow
        ]
        if never:
            return self._told(Answer.NEVER_FITS, draw, now_ms, never[0] + 1)
        if self._fits(draw, now_ms):
            missed = [self._missed(draw, subject, budget, now_ms) for subject, budget in _budgets(draw)]
            for subject in draw.charge.subjects:
                self._count(subject, draw, now_ms)
            if draw.hold:
                self.reservations[draw.hold.id] = list(self._parts(draw, now_ms))
            told = self._told(Answer.ADMITTED, draw, now_ms)
            numbers = [*told.numbers]
            for place, units in enumerate(missed):
                numbers[2 * place] += units
            return told._replace(numbers=tuple(numbers))
        return self._refusal(draw, now_ms)

    def _fits(self, draw: Draw, now_ms: int) -> bool:
        """What costs nothing is not refused, however full the budget is; nothing is in shadow mode."""
        return all(
            cost <= 0
            or subject.is_shadow
            or _counted(self._window(subject.name, budget.shape), budget.shape, now_ms) + cost <= budget.limit
            for (subject, budget), cost in zip(_budgets(draw), _costs(draw), strict=True)
        )

    def _parts(self, draw: Draw, now_ms: int) -> Iterator[Part]:
        for subject, budget in _budgets(draw):
            shape = budget.shape
            if shape.kind is not Kind.CALLS:
                held = self._window(subject.name, shape)
                yield Part(subject.name, shape, _current(held, shape, now_ms), _cost(draw, subject, budget))

    def _count(self, subject: Subject, draw: Draw, now_ms: int) -> None:
        """A write keeps what is counted, of windows that have a limit now; where nothing is taken, none is made."""
        costs = [self._counted_cost(draw, subject, budget, now_ms) for budget in subject.budgets]
        if not any(costs):
            return
        kept: dict[WindowShape, Held] = {}
        unsettled: dict[WindowShape, Held] = {}
        for budget, cost in zip(subject.budgets, costs, strict=True):
            shape = budget.shape
            held = self._window(subject.name, shape)
            current = _current(held, shape, now_ms)
            kept[shape] = _since(current - shape.n, held)
            unsettled[shape] = self._held_back(subject.name, shape, now_ms)
            if cost > 0:
                kept[shape][current] += cost
            elif cost < 0:
                kept[shape] = _without_oldest(kept[shape], -cost)
            if cost > 0 and draw.hold and shape.kind is not Kind.CALLS:
                unsettled[shape][current if self.format == 1 else 0] += cost
        self.held[subject.name] = kept
        self.unsettled[subject.name] = unsettled

    def _counted_cost(self, draw: Draw, subject: Subject, budget: Budget, now_ms: int) -> int:
        """What is counted of an admitted call: in shadow mode what fits; no more is given back than there is."""
        cost, shape = _cost(draw, subject, budget), budget.shape
        counted = _counted(self._window(subject.name, shape), shape, now_ms)
        if cost < 0:
            return max(cost, -counted)
        fits = counted + cost <= budget.limit
        return cost if fits or not subject.is_shadow else 0

    def _missed(self, draw: Draw, subject: Subject, budget: Budget, now_ms: int) -> int:
        """What of an admitted call is not counted for want of room, which only shadow mode allows."""
        return max(0, _cost(draw, subject, budget)) - max(0, self._counted_cost(draw, subject, budget, now_ms))

    def _unsettled(self, name: str, shape: WindowShape) -> Held:
        return self.unsettled.get(name, {}).get(shape, Counter())

    def _held_back(self, name: str, shape: WindowShape, now_ms: int) -> Held:
        """What reservations hold of what a window counts now."""
        held, unsettled = self._window(name, shape), self._unsettled(name, shape)
        if self.format == 1:
            return _since(_current(held, shape, now_ms) - shape.n, unsettled)
        return Counter({0: min(unsettled.total(), _counted(held, shape, now_ms))})

    def _refusal(self, draw: Draw, now_ms: int) -> Grant:
        waits = [
            self._wait(subject, budget, cost, now_ms)
            for (subject, budget), cost in zip(_budgets(draw), _costs(draw), strict=True)
        ]
        times = [at for at, _ in waits]
        latest = times.index(max(times))
        return self._told(Answer.REFUSED, draw, now_ms, latest + 1, *waits[latest])

    def _wait(self, subject: Subject, budget: Budget, cost: int, now_ms: int) -> tuple[int, int]:
        """When the cost fits; a second from now, and what is held, where it fitted if only what is spent counted."""
        if subject.is_shadow:
            return 0, 0
        shape, fits_at = budget.shape, self._fits_at(subject, budget, cost, now_ms)
        held = self._window(subject.name, shape)
        unsettled = self._held_back(subject.name, shape, now_ms).total()
        spent = _counted(held, shape, now_ms) - unsettled
        if fits_at > now_ms + HELD_RETRY_MS and spent + cost <= budget.limit:
            return now_ms + HELD_RETRY_MS, unsettled
        return fits_at, 0

    def _fits_at(self, subject: Subject, budget: Budget, cost: int, now_ms: int) -> int:
        """The first instant at which the cost fits this budget: now, or when some bucket is released."""
        if cost <= 0:
            return now_ms
        shape = budget.shape
        held = self._window(subject.name, shape)
        instants = [now_ms, *sorted(release_of(shape, bucket) for bucket in held)]
        return next(at for at in instants if at >= now_ms and _counted(held, shape, at) + cost <= budget.limit)

    def _told(self, answer: Answer, draw: Draw, now_ms: int, *refused: int) -> Grant:
        numbers = [number for subject, budget in _budgets(draw) for number in self._state(subject, budget, now_ms)]
        return Grant(answer, draw, tuple(numbers), *refused)

    def _state(self, subject: Subject, budget: Budget, now_ms: int) -> tuple[int, int]:
        shape = budget.shape
        held = self._window(subject.name, shape)
        counted = _counted(held, shape, now_ms)
        return counted, release_of(shape, max(held)) if counted else 0


def _budgets(draw: Draw) -> Iterator[tuple[Subject, Budget]]:
    return ((subject, budget) for subject in draw.charge.subjects for budget in subject.budgets)


def _costs(draw: Draw) -> list[int]:
    return [_cost(draw, subject, budget) for subject, budget in _budgets(draw)]


def _cost(draw: Draw, subject: Subject, budget: Budget) -> int:
    """What a call asks of one budget: its tokens, or its subject's own hits, or its hits."""
    kind = budget.shape.kind
    if kind is not Kind.CALLS:
        return (draw.tokens, *(draw.more or (0, 0, 0, 0)))[kind - 1]
    return draw.hits if isinstance(draw.hits, int) else draw.hits[draw.charge.subjects.index(subject)]


def _current(held: Held, shape: WindowShape, now_ms: int) -> int:
    """The clock's bucket, or the newest that holds units where the clock has been set back."""
    return max([bucket_at(shape, now_ms), *held])


def _since(oldest: int, held: Held) -> Held:
    """The units of this bucket and of later ones."""
    return Counter({bucket: units for bucket, units in held.items() if bucket >= oldest})


def _without_oldest(held: Held, units: int) -> Held:
    """Less so many units, the oldest first; what there is not is not given back."""
    left = +held
    for bucket in sorted(held):
        given = min(units, left[bucket])
        left[bucket] -= given
        units -= given
    return +left


def _counted(held: Held, shape: WindowShape, now_ms: int) -> int:
    """Units of the current bucket and the ``n`` before it."""
    if not held:
        return 0
    oldest = _current(held, shape, now_ms) - shape.n
    return sum(units for bucket, units in held.items() if bucket >= oldest)
