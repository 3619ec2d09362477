"""Budgets held in this process, for when the store cannot be asked. Pure: time is an argument, no I/O, no threads.

The same promise as ``lua/take.lua``: a window of ``n`` buckets counts the current one and the ``n`` before it; a call
is counted in all of its budgets or in none, and what a write does not limit any more is forgotten. The difference:
each limit is divided by the number of gates that share it, rounded down, so that all shares together are never more
than the limit. Subjects in shadow mode do not come here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from ratelimit.windows.budgets import Answer, Budget, Draw, Grant, Kind, Subject, WindowShape, units_of
from ratelimit.windows.window import bucket_of, release_ms

MAX_SUBJECTS: Final = 200_000
"""Most subjects that hold units at once, about 1 KiB each; a call that would bring another is refused."""
_FORGET_AT_ONCE: Final = 4  # more than a call adds, so that what is free is forgotten faster than it is brought


class NoShareError(Exception):
    """The call cannot be decided here: it costs more than this gate's share, or there is no room to count it."""


class _Held:
    """The units of one window of one subject: buckets in order, and their sum."""

    __slots__ = ("buckets", "shape", "total")

    def __init__(self, shape: WindowShape) -> None:
        self.shape = shape
        self.buckets: deque[list[int]] = deque()  # [bucket, units], oldest first
        self.total = 0

    def drop_old(self, now_ms: int) -> None:
        """Forget the buckets that count no more: all before the ``n`` that come before the current one."""
        oldest = bucket_of(now_ms, self.shape) - self.shape.n
        while self.buckets and self.buckets[0][0] < oldest:
            self.total -= self.buckets.popleft()[1]

    def add(self, units: int, now_ms: int) -> None:
        """Count units in the current bucket."""
        current = bucket_of(now_ms, self.shape)
        if self.buckets and self.buckets[-1][0] >= current:
            self.buckets[-1][1] += units
        else:
            self.buckets.append([current, units])
        self.total += units

    def free_at_ms(self) -> int:
        """Tell when the last unit is free again; 0 where nothing is held."""
        return release_ms(self.buckets[-1][0], self.shape) if self.buckets else 0

    def fits_at_ms(self, cost: int, share: int) -> int:
        """Tell when ``cost``, which is within ``share``, fits if nothing else is counted; 0: now."""
        over, at_ms = self.total + cost - share, 0
        for bucket, units in self.buckets:
            if over <= 0:
                break
            over -= units
            at_ms = release_ms(bucket, self.shape)
        return at_ms


_Row = tuple[Subject, Budget, int, _Held, int]  # a budget of the charge, this gate's share, what is held, its cost


class LocalBudgets:
    """All subjects that this process has counted and that still hold units. For one thread."""

    def __init__(self, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max_subjects = max_subjects
        self._subjects: OrderedDict[str, dict[WindowShape, _Held]] = OrderedDict()  # last counted last

    def __len__(self) -> int:
        return len(self._subjects)

    def take(self, draw: Draw, *, now_ms: int, sharers: int) -> Grant:
        """Decide one draw and count it if it is admitted; expiry and records are the caller's business.

        ``now_ms``: any clock that never goes back; the grant's times are on it. ``sharers``: gates that share each
        limit. Raises ``NoShareError`` for what one gate alone can never admit though the store might.
        """
        rows = self._rows(draw, now_ms, sharers)
        never = [place for place, (_, budget, _, _, cost) in enumerate(rows) if cost > budget.limit]
        if never:
            return Grant(Answer.NEVER_FITS, draw, _numbers(rows), never[0] + 1)
        self._refuse_without_share(draw, rows)
        times_ms = [held.fits_at_ms(cost, share) if cost else 0 for _, _, share, held, cost in rows]
        latest_ms = max(times_ms, default=0)
        if latest_ms:
            return Grant(Answer.REFUSED, draw, _numbers(rows), times_ms.index(latest_ms) + 1, latest_ms)
        self._count(draw, rows, now_ms)
        return Grant(Answer.ADMITTED, draw, _numbers(rows))

    def _rows(self, draw: Draw, now_ms: int, sharers: int) -> list[_Row]:
        rows, hits = [], draw.hits
        for place, subject in enumerate(draw.charge.subjects):
            own_cost = hits if isinstance(hits, int) else hits[place]
            windows = self._subjects.get(subject.name, {})
            for budget in subject.budgets:
                held = windows.get(budget.shape) or _Held(budget.shape)
                held.drop_old(now_ms)
                cost = own_cost if budget.shape.kind is Kind.CALLS else units_of(draw, budget.shape.kind)
                rows.append((subject, budget, budget.limit // sharers, held, cost))
        return rows

    def _refuse_without_share(self, draw: Draw, rows: list[_Row]) -> None:
        if any(cost > share for _, _, share, _, cost in rows):
            raise NoShareError("the call costs more than this gate's share of a budget")
        new = sum(subject.name not in self._subjects for subject in draw.charge.subjects)
        if len(self._subjects) + new > self._max_subjects:
            raise NoShareError("too many subjects are counted here")

    def _count(self, draw: Draw, rows: list[_Row], now_ms: int) -> None:
        """Count in every budget that costs something; windows without a limit are forgotten, as the store does."""
        self._forget_free(now_ms)
        written = {subject.name for subject, _, _, _, cost in rows if cost}
        for subject in draw.charge.subjects:
            if subject.name in written:
                self._subjects[subject.name] = {}
                self._subjects.move_to_end(subject.name)
        for subject, budget, _, held, cost in rows:
            if cost:
                held.add(cost, now_ms)
            if subject.name in written:
                self._subjects[subject.name][budget.shape] = held

    def _forget_free(self, now_ms: int) -> None:
        """Drop a few of the subjects that were counted longest ago and hold nothing any more."""
        for _ in range(_FORGET_AT_ONCE):
            name = next(iter(self._subjects), None)
            if name is None or any(held.free_at_ms() > now_ms for held in self._subjects[name].values()):
                return
            del self._subjects[name]


def _numbers(rows: list[_Row]) -> tuple[int, ...]:
    """Tell of every budget as the script does, and of its whole limit what is not left of this gate's share."""
    pairs = [(budget.limit - share + held.total, held.free_at_ms()) for _, budget, share, held, _ in rows]
    return tuple(number for pair in pairs for number in pair)
