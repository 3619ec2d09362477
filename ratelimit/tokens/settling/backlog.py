"""Ended calls that wait to be settled, cell by cell: bounded, noted from any thread, taken by one. Knows no store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ratelimit.tokens.endings import Told


class Waiting(NamedTuple):
    """One call that has ended, or is given back."""

    reservation: str
    told: Told | None  # None: the call was never answered, its tokens are given back
    since_ms: float
    unheard_until_ms: int | None = None  # not heard whether it was admitted; by the store's clock it may be until then


class Backlog:
    """What waits, the oldest of each cell first."""

    def __init__(self, cells: int) -> None:
        self._queues: list[deque[Waiting]] = [deque() for _ in range(cells)]
        self._in_hand: list[list[Waiting]] = [[] for _ in range(cells)]  # being settled: the oldest of all
        self._early: list[tuple[int, Waiting]] = []  # unheard ones that may yet be admitted: asked about again later
        self._changed = threading.Condition()
        self._count = 0  # in the queues and in hand; the early ones are not to be settled yet
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
            heads = [waiting[0].since_ms for waiting in (*self._in_hand, *self._queues) if waiting]
            return min([*heads, *(one.since_ms for _, one in self._early)], default=None)

    def put(self, by_cell: Mapping[int, Sequence[Waiting]], *, most: int, enough: int) -> int:
        """Add some, until ``most`` wait, and say how many are left out; wakes who waits for one, or for ``enough``."""
        lost = 0
        with self._changed:
            before = self._count
            for cell, ended in by_cell.items():
                kept = ended[: max(0, most - len(self))]
                self._queues[cell].extend(kept)
                self._count += len(kept)
                lost += len(ended) - len(kept)
            if before == 0 < self._count or before < enough <= self._count:  # what comes between need not wake anybody
                self._changed.notify()
        return lost

    def wait(self, seconds: float, *, linger_s: float, enough: int, now_ms: float) -> None:
        """Wait for something to settle, and then until it has waited ``linger_s`` or ``enough`` do."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count or self.is_stopping, seconds):
                return
            heads = [waiting[0].since_ms for waiting in (*self._in_hand, *self._queues) if waiting]
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

    def take(self, cell: int, most: int) -> list[Waiting]:
        """Take the oldest of a cell in hand, where nothing is; they wait until it is said what became of them."""
        with self._changed:
            queue = self._queues[cell]
            taken = self._in_hand[cell] = [queue.popleft() for _ in range(min(most, len(queue)))]
            return taken

    def waits(self, cell: int) -> bool:
        """Whether a cell has something to settle."""
        return bool(self._queues[cell] or self._in_hand[cell])

    def keep(self, cell: int, left: Sequence[Waiting]) -> None:
        """Of what is in hand keep so much there; the others are done."""
        with self._changed:
            self._count += len(left) - len(self._in_hand[cell])
            self._in_hand[cell] = list(left)

    def done(self, cell: int, count: int, *, early: Sequence[Waiting] = ()) -> None:
        """Be done with the first in hand; the others wait on, the ``early`` ones are asked about again."""
        with self._changed:
            self._count -= count
            self._queues[cell].extendleft(reversed(self._in_hand[cell][count:]))
            self._in_hand[cell] = []
            self._early += [(cell, one) for one in early]

    def postpone(self, cell: int) -> None:
        """Put what is in hand to the end of its cell: it may be what cannot be settled."""
        with self._changed:
            self._queues[cell].extend(self._in_hand[cell])
            self._in_hand[cell] = []

    def take_up_early(self) -> None:
        """Let those wait again for which it was too early."""
        with self._changed:
            for cell, one in self._early:
                self._queues[cell].append(one)
            self._count += len(self._early)
            self._early = []
