"""The nouns of usage: what a subject was used, in all and over time, and what is told of how its calls end. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

HOURS_KEPT_DAYS: Final = 8
DAYS_KEPT: Final = 397  # 13 months

ESTIMATED_AFTER: Final = 20
"""So many whole answers in a row without usage: nobody reads it, or the model's server tells none."""
MISSING_AFTER: Final = 20
"""So many calls in a row that nobody settled are no accident: a proxy that crashed, a gate that was away."""
ABOVE_AFTER: Final = 20
"""So many calls of an hour or two that cost more than they held are worth a warning."""


class Metering(enum.StrEnum):
    """Whether it is told how a publication's calls end, without which each is charged what it was presumed to cost."""

    UNPROVED = "unproved"  # nobody told of any yet, nor were there enough that should have been told of
    SEEN = "seen"  # told of, the latest ones too as far as is known
    ESTIMATED = "estimated"  # told of, but the last 20 whole answers told no usage: their tokens are estimates
    MISSING = "missing"  # 20 calls since anybody told have ended untold


@dataclass(frozen=True, slots=True)
class Used:
    """What a subject was used in one stretch of time."""

    calls: int = 0  # admitted in it
    tokens: int = 0  # charged in it, to calls that ended in it

    def __add__(self, other: Used) -> Used:
        """The use of both stretches."""
        return Used(self.calls + other.calls, self.tokens + other.tokens)


UNUSED: Final = Used()


class Signs(NamedTuple):
    """What is told of a publication's calls, as far as anybody must be warned."""

    metering: Metering = Metering.UNPROVED
    above: int = 0  # calls of the last one to two hours that cost more than they held


@dataclass(frozen=True, slots=True)
class Usage:
    """What a subject was used."""

    total: int = 0  # admitted calls since its counters began
    today: int = 0  # admitted calls since midnight UTC
    last_access_ms: int = 0  # store time of the last admitted call; 0: none yet
    tokens: int = 0  # charged to calls that have ended, since its counters began
    settled_ms: int = 0  # of a publication: store time at which the end of a call was last told; 0: of none yet
    unsettled: int = 0  # of a publication: calls admitted since then whose end nobody told in time
    estimated: int = 0  # of a publication: whole answers without usage since one told it
    above: Used = UNUSED  # of a publication: calls of two clock hours that were dearer than held, by how much

    @property
    def metering(self) -> Metering:
        """Whether it is told how a publication's calls end."""
        if self.unsettled >= MISSING_AFTER:
            return Metering.MISSING
        if self.estimated >= ESTIMATED_AFTER:
            return Metering.ESTIMATED
        return Metering.SEEN if self.settled_ms else Metering.UNPROVED


@dataclass(frozen=True, slots=True)
class Series:
    """A subject's use over time, the oldest first; the last of each is still running."""

    hours: tuple[Used, ...]  # of the last 24 clock hours
    minutes: tuple[Used, ...]  # of the last 60 clock minutes
    by_hour: Mapping[int, Used]  # hours since the Unix epoch in which it was used, of the last 8 days
    by_day: Mapping[int, Used]  # days since the Unix epoch likewise, of the last 13 months
