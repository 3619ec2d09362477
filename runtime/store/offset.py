"""How far the store's clock is from ours, as a bound that can be trusted. Pure.

Each exchange with the store tells its clock at some moment between our sending and our receiving, so
``store - local`` lies in ``[store - received, store - sent]``. A deadline handed to the store uses the lower
bound: the store may give up early, never late. Idea: Cristian, "Probabilistic clock synchronization" (1989).
"""

from __future__ import annotations

import math
from typing import Final

MAX_AGE_MS: Final = 10_000
"""A bound older than this is forgotten: 10 s at 100 ppm drift is 1 ms, the resolution of the store's clock."""
DRIFT: Final = 1e-4
"""How far two clocks move apart at most, as a part of the time passed: 100 ppm."""


class ClockOffset:
    """The interval in which ``store clock - local monotonic clock`` must lie, in milliseconds."""

    def __init__(self) -> None:
        self._low_ms: float | None = None
        self._high_ms = 0.0
        self._learnt_at_ms = 0.0

    @property
    def known(self) -> bool:
        """Whether any exchange has been seen."""
        return self._low_ms is not None

    def learn(self, *, sent_ms: float, store_ms: int, received_ms: float) -> None:
        """Take in one exchange. ``store_ms`` is floored to a millisecond, so its true value is up to 1 ms later."""
        low_ms, high_ms = store_ms - received_ms, store_ms + 1 - sent_ms
        stale = received_ms - self._learnt_at_ms > MAX_AGE_MS
        if self._low_ms is None or stale or low_ms > self._high_ms or high_ms < self._low_ms:
            self._low_ms, self._high_ms, self._learnt_at_ms = low_ms, high_ms, received_ms
            return
        self._low_ms, self._high_ms = max(self._low_ms, low_ms), min(self._high_ms, high_ms)

    def deadline_on_store_ms(self, deadline_ms: float) -> int:
        """Translate a local monotonic deadline into the store's clock, never later than it; 0 if unknown."""
        return math.floor(deadline_ms + self._low_ms) if self._low_ms is not None else 0

    def latest_on_store_ms(self, local_ms: float) -> int:
        """Tell the latest that the store's clock can be, also long after the last exchange; 0 if unknown."""
        if self._low_ms is None:
            return 0
        drift_ms = max(0.0, local_ms - self._learnt_at_ms) * DRIFT
        return math.ceil(local_ms + self._high_ms + drift_ms)
