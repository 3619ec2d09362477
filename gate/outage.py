"""How long calls may go on without a store: outages spend the time together, only up-time gives it back. Pure."""

from __future__ import annotations

import threading
from typing import Final

GIVEN_BACK: Final = 0.1
"""Part of the time with the store that is given back: ten seconds for one. A store that comes and goes is used up."""


class OutageClock:
    """Time left, in milliseconds, out of ``longest_ms``; any thread may look.

    Whatever the store does: in a stretch in which it was up for U, at most ``longest_ms + GIVEN_BACK * U`` are spent.
    """

    def __init__(self, longest_ms: float) -> None:
        self._longest_ms = longest_ms
        self._left_ms = longest_ms
        self._seen_ms: float | None = None
        self._was_up = True
        self._lock = threading.Lock()

    def look(self, now_ms: float, *, is_up: bool) -> float:
        """Take note of whether the store is up and return what is left; as it was at a look, so it was until the next.

        ``now_ms``: monotonic. Looks are needed at every call that the store could not decide, and when it is back.
        """
        with self._lock:
            passed_ms = 0.0 if self._seen_ms is None else max(0.0, now_ms - self._seen_ms)
            change_ms = GIVEN_BACK * passed_ms if self._was_up else -passed_ms
            self._left_ms = min(self._longest_ms, max(0.0, self._left_ms + change_ms))
            self._seen_ms, self._was_up = now_ms, is_up
            return self._left_ms
