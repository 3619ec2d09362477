"""Clocks as arguments. Local waiting uses the monotonic clock; shared state goes by the store's clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Milliseconds from a monotonic clock and from the wall."""

    def monotonic_ms(self) -> float:
        """Milliseconds that only ever grow; for deadlines."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; for dates shown to people."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_ms(self) -> float:
        """Return ``time.monotonic()`` in milliseconds."""
        return time.monotonic() * 1000

    def wall_ms(self) -> int:
        """Return ``time.time()`` in milliseconds."""
        return time.time_ns() // 1_000_000
