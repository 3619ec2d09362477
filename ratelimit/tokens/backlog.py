"""Ended calls that wait to be settled, cell by cell: bounded, noted from any thread, taken by one. Knows no store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ratelimit.tokens.endings import Told


@dataclass(frozen=True, slots=True)
class Waiting:
    """One call that has ended, or is given back."""

    reservation: str
    told: Told | None  # None: the call was never answered, its tokens are given back
    since_ms: float
    unheard_until_ms: int | None = None  # not heard whether it was admitted; by the store's clock it may be until then


class Backlog:
    """What waits, the oldest of each cell first."""

    def __init__(self, cells: int) -> None:
        self._queues: list[deque[Waiting]] = [deque() for _ in range(cells)]
        self._early: list[tuple[int, Waiting]] = []  # unheard ones that may yet be admitted: asked about again later
        self._changed = threading.Condition()
        self._count = 0  # in the queues; the early ones are not to be settled yet
        self.is_stopping = False

    def __len__(self) -> int:
        """How many wait, early ones among them."""
        return self._count + len(self._early)

    @property
    def has_some(self) -> bool:
        """Whether there is something to settle."""
        return self._count > 0

    @property
    def early(self) -> int:
        """How many are asked about again later."""
        return len(self._early)

    @property
    def oldest_ms(self) -> float | None:
        """Since when the longest waiting one waits; ``None``: nothing waits."""
        with self._changed:
            heads = [queue[0].since_ms for queue in self._queues if queue]
            return min([*heads, *(one.since_ms for _, one in self._early)], default=None)

    def put(self, cell: int, one: Waiting, *, most: int, enough: int) -> bool:
        """Add one, unless ``most`` wait; wakes whoever waits for one, or for ``enough`` of them."""
        with self._changed:
            if len(self) >= most:
                return False
            self._queues[cell].append(one)
            self._count += 1
            if self._count in {1, enough}:  # what comes between need not wake anybody
                self._changed.notify()
            return True

    def wait(self, seconds: float, *, linger_s: float, enough: int, now_ms: float) -> None:
        """Wait for something to settle, and then until it has waited ``linger_s`` or ``enough`` do."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count or self.is_stopping, seconds):
                return
            heads = [queue[0].since_ms for queue in self._queues if queue]
            lingered_s = max(0.0, now_ms - min(heads, default=now_ms)) / 1000
            self._changed.wait_for(lambda: self._count >= enough or self.is_stopping, max(0.0, linger_s - lingered_s))

    def pause(self, seconds: float) -> None:
        """Wait, unless it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_stopping, seconds)

    def stop(self) -> None:
        """Wake whoever waits, for good."""
        with self._changed:
            self.is_stopping = True
            self._changed.notify()

    # For the one thread that settles

    def first(self, cell: int, most: int) -> list[Waiting]:
        """The oldest of a cell; they stay until they are ``done``."""
        with self._changed:
            queue = self._queues[cell]
            return [queue[place] for place in range(min(most, len(queue)))]

    def waits(self, cell: int) -> bool:
        """Whether a cell has something to settle."""
        return bool(self._queues[cell])

    def done(self, cell: int, count: int, *, left: Sequence[Waiting] = (), early: Sequence[Waiting] = ()) -> None:
        """Take the oldest off, but for those ``left``, which stay; the ``early`` ones are asked about again."""
        with self._changed:
            queue = self._queues[cell]
            for _ in range(count):
                queue.popleft()
            queue.extendleft(reversed(left))
            self._count += len(left) - count
            self._early += [(cell, one) for one in early]

    def postpone(self, cell: int, count: int) -> None:
        """Put the oldest of a cell to its end: they may be what it cannot settle."""
        with self._changed:
            self._queues[cell].rotate(-count)

    def take_up_early(self) -> None:
        """Let those wait again for which it was too early."""
        with self._changed:
            for cell, one in self._early:
                self._queues[cell].append(one)
            self._count += len(self._early)
            self._early = []
