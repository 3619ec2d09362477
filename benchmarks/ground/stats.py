"""Medians, spreads and ratios of rounds that took turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DIGITS: Final = ((10, 2), (100, 1))
"""Decimals of a number below a bound."""


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of these rounds."""
        return Spread(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        digits = next((digits for below, digits in _DIGITS if abs(self.median) < below), 0)
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}..{self.most:,.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ratio of the medians; least and most are of the ratios round by round."""
    by_round = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Spread(statistics.median(ours) / statistics.median(theirs), min(by_round), max(by_round))
