"""Which cells the sweep that is on has not done with, and when every cell was swept last. For one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

SWEEP_S: Final = 1.0


class Sweeps:
    """One sweep of all cells a second, or as soon after that as the one before has ended."""

    def __init__(self, cells: int, now_ms: Callable[[], float]) -> None:
        self._cells = cells
        self._now_ms = now_ms
        self._swept_at_ms = now_ms()
        self._from_ms = now_ms() + SWEEP_S * 1000
        self._left: set[int] = set()  # cells that the sweep which is on has not done with
        self._missed: set[int] | None = None  # cells that it cannot ask; None: no sweep is on

    @property
    def ago_s(self) -> float:
        """Seconds since every cell was last swept."""
        return (self._now_ms() - self._swept_at_ms) / 1000

    @property
    def due_s(self) -> float:
        """Seconds until there is something to sweep."""
        return 0.0 if self._left else max(0.0, self._from_ms - self._now_ms()) / 1000

    @property
    def is_due(self) -> bool:
        """Whether it is time for a new one."""
        return not self._left and self._now_ms() >= self._from_ms

    def begin(self, askable: Iterable[int]) -> None:
        """Begin one, in these cells; it says nothing of the others."""
        self._from_ms = self._now_ms() + SWEEP_S * 1000
        self._left = set(askable)
        self._missed = set(range(self._cells)) - self._left

    def has(self, cell: int) -> bool:
        """Whether a cell is still to be swept."""
        return cell in self._left

    def done(self, cell: int) -> None:
        """Note that nothing of a cell is overdue."""
        self._left.discard(cell)

    def miss(self, cell: int) -> None:
        """Note that a cell cannot be asked."""
        if cell in self._left and self._missed is not None:
            self._left.discard(cell)
            self._missed.add(cell)

    def end(self) -> bool:
        """Whether the sweep has just ended; where no cell was missed, nothing is overdue any more."""
        if self._left or self._missed is None:
            return False
        if not self._missed:
            self._swept_at_ms = self._now_ms()
        self._missed = None
        return True
