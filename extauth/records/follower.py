"""Keeps the record cache warm: follows the change feed and drops what changed.

A convenience, never a safeguard: the taking script compares epochs whether this thread lives or not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from catalog.store.reader import Delta, Snapshot, counter_of
from extauth.records.cache import RecordCache
from runtime.lifecycle import fault_told
from runtime.store.link import StoreLink

BLOCK_MS: Final = 1_000
PATIENCE_MS: Final = 5_000
"""How long one wait for the feed may take in all, blocking included."""
RETRY_S: Final = 0.2

_log = logging.getLogger(__name__)

Follow = Callable[[Callable[..., Any], str, int], Delta | None]
ReadEpoch = Callable[[Callable[..., Any]], Snapshot]


class FeedFollower:
    """Owns the thread ``feed-follower`` and a link of its own."""

    def __init__(
        self,
        cache: RecordCache,
        *,
        make: Callable[[], StoreLink],
        follow: Follow,
        read_epoch: ReadEpoch,
        on_error: Callable[[], None],
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._make = make
        self._follow = follow
        self._read_epoch = read_epoch
        self._on_error = on_error
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._link: StoreLink | None = None
        self._current_at_ms = now_ms()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed-follower", daemon=True)

    def lag_s(self) -> float:
        """Seconds since the cache was last known to be as new as the feed (or since this was made)."""
        return (self._now_ms() - self._current_at_ms) / 1000

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def _run(self) -> None:
        with fault_told(_log, "the feed's follower", self._on_fault):
            self._keep_following()

    def _keep_following(self) -> None:
        while not self._stopping.is_set():
            link = self._link = self._make()
            try:
                link.connect()
                while not self._stopping.is_set() and self._step(link):
                    pass
            except (RedisError, OSError, UnicodeError):
                if not self._stopping.is_set():
                    self._on_error()
                    self._stopping.wait(RETRY_S)
            finally:
                link.close()

    def _step(self, link: StoreLink) -> bool:
        """Wait for one change and pass it on; whether the link is one to stay with.

        One whose store is behind the cache may lead to a deposed primary, which would empty the cache again and again.
        """

        def execute(*command: Any) -> Any:
            return link.execute(self._now_ms() + PATIENCE_MS, *command)

        seen = self._cache.epoch
        delta = self._follow(execute, seen, BLOCK_MS)
        is_behind = False
        if delta is None:
            newest = self._read_epoch(execute).epoch
            is_behind = counter_of(newest) < counter_of(seen)
            self._cache.reset(newest)
        elif delta.epoch != seen:
            self._cache.advance(seen, delta.epoch, delta.refs)
        self._current_at_ms = self._now_ms()
        return not is_behind

    def stop(self, timeout_s: float) -> None:
        """End the thread, waking it if it waits for a change."""
        self._stopping.set()
        if self._link is not None:
            self._link.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
