"""The lanes of one process: how they are found, how long they stand, and how many there may be.

A lane is found by a keyed hash of the credential as it was presented and of the route, so that no key's text is kept;
the hash's key is this process's own. It stands while

* no record that it names has changed: their marks are struck before the cache's epoch moves on, so a lane that is found
  after an epoch was read is at least as new as that epoch;
* it was not said that nobody knows what changed, nor that all is to be decided anew (``forget``: other secrets);
* its credential has not ended by a lower bound of the store's clock.

For one thread; the cache may be advanced, and all forgotten, by others meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

from extauth.lanes.lane import Lane
from extauth.records.cache import RecordCache
from extauth.records.marks import stand

MAX_BYTES: Final = 192 * 2**20
"""Of all lanes together, some 100,000 of them; beyond it those go first that no call has used for the longest time."""
IDLE_MS: Final = 600_000
"""A lane that no call has used for so long is given up."""
_SWEPT_AT_ONCE: Final = 16
"""Lanes given up with one batch at most, so that none waits for all that a reset voids."""
_DIGEST_BYTES: Final = 16


class LaneTable:
    """Lanes by what their calls present."""

    def __init__(
        self,
        cache: RecordCache,
        *,
        max_bytes: int = MAX_BYTES,
        entropy: Callable[[int], bytes] = os.urandom,
        clock_ms: Callable[[], float] = lambda: time.monotonic() * 1000,
    ) -> None:
        self._cache = cache
        self._marks = cache.marks
        self._max_bytes = max_bytes
        self._hash = hashlib.blake2b(key=entropy(hashlib.blake2b.MAX_KEY_SIZE), digest_size=_DIGEST_BYTES)
        self._lanes: OrderedDict[bytes, Lane] = OrderedDict()  # the last used last
        self._clock_ms = clock_ms
        self._now_ms = 0.0
        self.size_bytes = 0
        """About how much memory all lanes take."""
        self.era = 0
        """Another number whenever all is to be decided anew."""

    def __len__(self) -> int:
        return len(self._lanes)

    def name(self, presented: str) -> bytes:
        """The name of a lane: of the route and the credential as they were presented."""
        hashed = self._hash.copy()
        hashed.update(presented.encode(errors="surrogatepass"))
        return hashed.digest()

    def begin(self) -> None:
        """Begin a batch; gives up a few of the void and the idle."""
        now_ms = self._now_ms = self._clock_ms()
        for _ in range(_SWEPT_AT_ONCE):
            oldest = next(iter(self._lanes.values()), None)
            if oldest is None or (oldest.used_ms + IDLE_MS > now_ms and self._stands(oldest)):
                return
            self._cache.locked(self._remove_oldest)

    def find(self, name: bytes, store_ms: int) -> Lane | None:
        """The lane of this name that stands. ``store_ms``: a lower bound of the store's clock, 0 where it is unknown.

        To be asked after the cache's epoch was read, by which the lane is then to be proved.
        """
        lane = self._lanes.get(name)
        if lane is None:
            return None
        if (lane.turn != self._marks.turn and not self._stands(lane)) or lane.has_ended(store_ms):
            self._cache.locked(partial(self._remove, name))
            return None
        lane.used_ms = self._now_ms
        self._lanes.move_to_end(name)
        return lane

    def _stands(self, lane: Lane) -> bool:
        turn = self._marks.turn  # read before the marks are: what is struck meanwhile moves it on
        if lane.turn != turn:
            if not stand(lane.marks):
                return False
            lane.turn = turn
        return True

    def keep(self, name: bytes, lane: Lane, *, epoch: str, era: int) -> bool:
        """Keep a lane that was decided on records of this epoch, by the secrets of this era; False if it may not be."""
        return self._cache.locked(partial(self._put, name, lane, epoch, era))

    def _put(self, name: bytes, lane: Lane, epoch: str, era: int) -> bool:
        """Under the cache's lock, at the epoch decided on: the marks are those of the very records."""
        size_bytes = lane.size_bytes
        if epoch != self._cache.epoch or era != self.era or size_bytes > self._max_bytes:
            return False
        if name in self._lanes:
            self._remove(name)
        lane.marks = self._marks.hold(lane.draw.charge.refs)
        lane.turn = self._marks.turn
        lane.used_ms = self._now_ms
        self._lanes[name] = lane
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes:
            self._remove_oldest()
        return True

    def _remove_oldest(self) -> None:
        self._remove(next(iter(self._lanes)))

    def _remove(self, name: bytes) -> None:
        lane = self._lanes.pop(name)
        self.size_bytes -= lane.size_bytes
        self._marks.let_go(lane.marks)

    def forget(self) -> None:
        """Have everything decided anew, from any thread; what is being decided now is not kept."""
        self._cache.locked(self._begin_anew)

    def _begin_anew(self) -> None:
        self.era += 1
        self._marks.strike_all()
