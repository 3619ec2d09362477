"""Reads the usage that ``take.lua`` counts: calls since publishing, calls today, the last call, calls over time.

Knows usage subjects by name only. Days are UTC days of the caller's ``now_ms``, which is the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio

from ratelimit.names import usage_hour_key, usage_key

_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
_HOURS_A_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Usage:
    """What a subject was used."""

    total: int  # admitted calls since its counters began
    today: int  # admitted calls since midnight UTC
    last_access_ms: int  # store time of the last admitted call; 0: none yet


@dataclass(frozen=True, slots=True)
class Series:
    """Admitted calls over time, the oldest first; the last of each is still running."""

    hours: tuple[int, ...]  # of the last 24 clock hours
    minutes: tuple[int, ...]  # of the last 60 clock minutes


def hours_of_day(now_ms: int) -> range:
    """Return the hours since the Unix epoch that belong to the UTC day of ``now_ms``, up to its own."""
    hour = now_ms // _HOUR_MS
    return range(hour - hour % _HOURS_A_DAY, hour + 1)


async def read_usage(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Usage:
    """Read a subject's usage in one round trip; raises what the client raises."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hmget(usage_key(cell, subject), ["total", "last_ms"])
    for hour in hours_of_day(now_ms):
        pipeline.hvals(usage_hour_key(cell, subject, hour))
    (total, last_ms), *hours = await pipeline.execute()
    return Usage(total=_number(total), today=_sum(hours), last_access_ms=_number(last_ms))


async def read_series(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Series:
    """Read a subject's last day by hour and last hour by minute in one round trip; raises what the client raises."""
    hour, minute = now_ms // _HOUR_MS, now_ms // _MINUTE_MS
    pipeline = client.pipeline(transaction=False)
    for one in range(hour - _HOURS_A_DAY + 1, hour + 1):
        pipeline.hgetall(usage_hour_key(cell, subject, one))
    read: list[dict[bytes, bytes]] = await pipeline.execute()
    by_minute = {
        (hour - _HOURS_A_DAY + 1 + position) * _MINUTES_AN_HOUR + int(field): int(calls)
        for position, fields in enumerate(read)
        for field, calls in fields.items()
    }
    return Series(
        hours=tuple(sum(map(int, fields.values())) for fields in read),
        minutes=tuple(by_minute.get(one, 0) for one in range(minute - _MINUTES_AN_HOUR + 1, minute + 1)),
    )


def _number(raw: Any) -> int:
    return int(raw or 0)


def _sum(hours: list[list[Any]]) -> int:
    return sum(int(calls) for hour in hours for calls in hour)
