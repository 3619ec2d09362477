"""How much one script may do: batches sized by the time that the scripts before took of the store. Pure."""

from __future__ import annotations

from typing import Final

SCRIPT_BUDGET_US: Final = 2_000
"""Longest time one script should keep the store to itself: other clients wait that long at most."""
_WEIGHT: Final = 0.2


class BatchSizer:
    """How many calls fit ``SCRIPT_BUDGET_US``, by an average over the scripts seen."""

    def __init__(self, *, first: int, largest: int) -> None:
        self._us_per_call = SCRIPT_BUDGET_US / first
        self._largest = largest

    def learn(self, calls: int, spent_us: int) -> None:
        """Take in one script's time."""
        self._us_per_call += _WEIGHT * (spent_us / calls - self._us_per_call)

    @property
    def calls(self) -> int:
        """Calls to take at once, 1 at least."""
        return max(1, min(self._largest, int(SCRIPT_BUDGET_US / max(1.0, self._us_per_call))))
