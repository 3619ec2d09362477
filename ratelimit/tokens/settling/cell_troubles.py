"""Cells that cannot be asked while others can: each is asked again later and later, so that it does not delay them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

FIRST_RETRY_S: Final = 0.2
MAX_RETRY_S: Final = 5.0


class CellTroubles:
    """Remembers who failed; used by one thread."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._from_ms: dict[int, float] = {}  # when it may be asked again
        self._retry_s: dict[int, float] = {}  # how long it was let alone

    def may_be_asked(self, cell: int) -> bool:
        """Whether it is time to ask this cell."""
        return self._now_ms() >= self._from_ms.get(cell, 0)

    def note(self, asked: Sequence[int], failed: Collection[int]) -> None:
        """Take in who was asked and who of them failed; where all did, it is no cell's own trouble."""
        for cell in asked:
            if cell not in failed or len(failed) == len(asked):
                self._from_ms.pop(cell, None)
                self._retry_s.pop(cell, None)
            else:
                self._retry_s[cell] = min(MAX_RETRY_S, 2 * self._retry_s.get(cell, FIRST_RETRY_S / 2))
                self._from_ms[cell] = self._now_ms() + self._retry_s[cell] * 1000
