"""Which combinations of labels have series of their own: as many as a scrape bears, those in use before others.

A combination that was not used for ``IDLE_S`` gives its place, and its series go, when another needs it. Nothing is
added to ``other`` then: its value would jump by all that was ever counted, which a rate takes for calls of now. What
remains never goes down, so rates and their sums are right throughout; a sum of the bare values is not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_NAMES: Final = 500
"""Most names of one kind, such as publications, that get a label of their own in one process."""
OTHER: Final = "other"
IDLE_S: Final = 600.0
"""Longer than any scrape's interval: what was counted last has been read by then."""


class BoundedLabels:
    """Lets ``limit`` combinations of labels through and calls the rest ``other``. For one thread."""

    def __init__(
        self, limit: int, on_gone: Callable[[tuple[str, ...]], None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """``on_gone`` takes away the series of a combination that lost its place."""
        self._limit = limit
        self._on_gone = on_gone
        self._now_s = now_s
        self._used_s: OrderedDict[tuple[str, ...], float] = OrderedDict()  # the last used stand last

    def of(self, *labels: str) -> tuple[str, ...]:
        """Return the labels, or as many times ``other``."""
        now_s = self._now_s()
        if labels not in self._used_s and not self._has_room(now_s):
            return (OTHER,) * len(labels)
        self._used_s[labels] = now_s
        self._used_s.move_to_end(labels)
        return labels

    def _has_room(self, now_s: float) -> bool:
        if len(self._used_s) < self._limit:
            return True
        idlest, used_s = next(iter(self._used_s.items()))
        if now_s - used_s < IDLE_S:
            return False
        self.forget(idlest)
        return True

    def forget(self, labels: tuple[str, ...]) -> None:
        """Take a combination's place away."""
        del self._used_s[labels]
        self._on_gone(labels)

    def with_first(self, label: str) -> list[tuple[str, ...]]:
        """Return the combinations that begin with this label."""
        return [labels for labels in self._used_s if labels[0] == label]
