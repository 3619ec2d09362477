"""The limiter on the hot path: deadlines on the store's clock, batches sized by measured store time.

Knows the limiter and the clocks; nothing of keys or records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ratelimit.budgets import Charge, Fence, Taken
from ratelimit.limiter import Limiter
from runtime.clock import Clock
from runtime.offset import ClockOffset

SCRIPT_BUDGET_US: Final = 2_000
"""Longest time one script should keep the store to itself: other clients wait that long at most."""
FIRST_BATCH: Final = 32
LARGEST_BATCH: Final = 256
_WEIGHT: Final = 0.2


class BatchSizer:
    """How many calls fit ``SCRIPT_BUDGET_US``, by an average over the scripts seen."""

    def __init__(self) -> None:
        self._us_per_call = SCRIPT_BUDGET_US / FIRST_BATCH

    def learn(self, calls: int, spent_us: int) -> None:
        """Take in one script's time."""
        self._us_per_call += _WEIGHT * (spent_us / calls - self._us_per_call)

    @property
    def calls(self) -> int:
        """Calls to take at once: 1..256."""
        return max(1, min(LARGEST_BATCH, int(SCRIPT_BUDGET_US / max(1.0, self._us_per_call))))


class Taker:
    """``ratelimit.limiter`` bound to the store's clock, as ``extauth.batch`` wants it."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        clock: Clock,
        offset: ClockOffset,
        on_taken: Callable[[Sequence[Charge], Taken], None] = lambda _charges, _taken: None,
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._offset = offset
        self._on_taken = on_taken
        self.sizer = BatchSizer()

    def take(
        self,
        execute: Callable[..., Any],
        charges: Sequence[Charge],
        *,
        epoch: str,
        deadline_ms: float,
        by_records: bool,
    ) -> Taken:
        """Take before ``deadline_ms`` (monotonic clock): the script itself gives up when it comes too late."""
        sent_ms = self._clock.monotonic_ms()
        taken = self._limiter.take(
            execute,
            charges,
            epoch=epoch,
            deadline_ms=self._offset.deadline_on_store_ms(deadline_ms),
            by_records=by_records,
        )
        self._offset.learn(sent_ms=sent_ms, store_ms=taken.now_ms, received_ms=self._clock.monotonic_ms())
        if taken.fence is Fence.PASSED:  # the others end before the work begins
            self.sizer.learn(len(charges), taken.spent_us)
        self._on_taken(charges, taken)
        return taken
