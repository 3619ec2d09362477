"""What is worth counting while a batch is decided, besides its verdicts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError


def _ignore(*_told: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Events:
    """Who is told what happens."""

    stale: Callable[[int], None] = _ignore  # so many calls are decided again
    gathered: Callable[[int, int], None] = _ignore  # so many records were needed, so many of them read from the store
    laned: Callable[[int], None] = _ignore  # so many calls go by lanes
    denied: Callable[[int], None] = _ignore  # so many calls were refused as a moment ago, without the script
    unknown_outcome: Callable[[int], None] = _ignore  # so many calls are refused though the store may have counted them
    store_error: Callable[[RedisError], None] = _ignore


UNHEARD = Events()
"""Nobody is told."""
