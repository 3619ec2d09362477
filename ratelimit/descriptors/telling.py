"""What is said of a call of the rate-limit service: by the numbers of the script, for each of its descriptors. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ratelimit.descriptors.asking import UNCOUNTED, Plan, never_fits
from ratelimit.descriptors.file import Limit
from ratelimit.windows.budgets import Grant


class Outcome(enum.StrEnum):
    """What became of a call; also a metric's label."""

    OK = "ok"
    OVER_LIMIT = "over_limit"
    INVALID = "invalid"  # it brings a limit along that cannot be obeyed: the answer is an error
    UNDECIDED = "undecided"  # the store could not be asked; a setting says what the caller is told


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of one descriptor."""

    is_over: bool = False
    is_above: bool = False  # the same in shadow or quota mode, where it refuses nobody
    limit: Limit | None = None  # None: it meets none, or one that another replaces
    remaining: int = 0
    reset_ms: int = 0  # until the limit is whole again; of the one that refused, until the call fits


@dataclass(slots=True, eq=False)
class Said:
    """What is said of one call."""

    outcome: Outcome
    plan: Plan
    grant: Grant | None = None  # None: the store was not asked
    now_ms: int = 0  # the store's clock

    @property
    def statuses(self) -> tuple[Status, ...]:
        """One for each descriptor, in order; made anew each time."""
        shape = self.plan.shape
        if self.outcome is Outcome.UNDECIDED:
            return (Status(),) * len(shape.limits)
        return tuple(map(self._status, shape.limits, self.plan.hits, shape.places))

    def _status(self, limit: Limit | None, hits: int, place: int) -> Status:
        if limit is None or limit.window is None:
            return Status(limit=limit)
        grant = self.grant
        if grant is None or place == UNCOUNTED:  # the call never fits this limit, or another one; or it counts nothing
            is_above = limit.refuses_nobody and not limit.per_window and hits > 0
            return Status(never_fits(limit, hits), is_above, limit, limit.per_window)
        total, until_ms = grant.numbers[2 * place : 2 * place + 2]
        remaining = limit.per_window - total
        summed = self.plan.summed_hits(place)
        lacks = hits > 0 and remaining < summed and self.outcome is Outcome.OVER_LIMIT
        is_above = hits > 0 and limit.refuses_nobody and (lacks or remaining < 0)
        if grant.retry_at_ms and grant.place == place + 1:
            until_ms = grant.retry_at_ms
        is_over = lacks and not limit.refuses_nobody
        return Status(is_over, is_above, limit, max(0, remaining), max(0, until_ms - self.now_ms))
