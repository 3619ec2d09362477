"""Reads what older gates have kept of usage, while it lives: hashes by the hour, the day and 32 days.

Gates of the release before wrote a hash of an hour's minutes, of a day's hours and of 32 days; ``lua/count.lua`` takes
them into a subject's past once a day. Those before them wrote a hash of minutes for each hour and nothing into
``now``, and theirs live for 8 days. All is summed into what is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import redis.asyncio

from ratelimit.names import (
    DAYS_A_HASH,
    usage_days_key,
    usage_hour_key,
    usage_hours_key,
    usage_minutes_key,
)
from ratelimit.usage.facts import DAYS_KEPT, HOURS_KEPT_DAYS, UNUSED, Used
from ratelimit.usage.replies import undamaged

_MINUTES_AN_HOUR: Final = 60
_HOURS_A_DAY: Final = 24
_TOKENS: Final = b"t"

Fields = Mapping[bytes, bytes]


def hash_keys(cell: str, subject: str, hour: int) -> tuple[list[str], list[str], list[str]]:
    """Name the hashes of minutes, of hours and of days in which a subject's use until an hour may stand."""
    day = hour // _HOURS_A_DAY
    blocks = range(day - DAYS_KEPT, day + DAYS_A_HASH, DAYS_A_HASH)
    return (
        [usage_minutes_key(cell, subject, one) for one in (hour - 1, hour)],
        [usage_hours_key(cell, subject, one) for one in range(day - HOURS_KEPT_DAYS, day + 1)],
        list(dict.fromkeys(usage_days_key(cell, subject, min(one, day)) for one in blocks)),
    )


def numbered(keys: Sequence[str], read: Iterable[Fields], width: int) -> dict[int, Used]:
    """What such hashes say, by minutes, hours or days since the Unix epoch; a hash numbers ``width`` from its own."""
    found: dict[int, Used] = {}
    for key, fields in zip(keys, read, strict=True):
        before = int(key.rpartition(":")[2][1:]) * width
        for field, used in by_field(fields).items():
            found[before + field] = found.get(before + field, UNUSED) + used
    return found


def hours_of_day(now_ms: int) -> range:
    """Return the hours since the Unix epoch that belong to the UTC day of ``now_ms``, up to its own."""
    hour = now_ms // 3_600_000
    return range(hour - hour % _HOURS_A_DAY, hour + 1)


async def calls_of_day(client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]], now_ms: int) -> list[int]:
    """Read how many calls of today gates without ``now`` have counted."""
    hours = hours_of_day(now_ms)
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        for hour in hours:
            pipeline.hgetall(usage_hour_key(cell, subject, hour))
    read = [_sum(undamaged(reply)).calls for reply in await pipeline.execute(raise_on_error=False)]
    return [sum(read[at : at + len(hours)]) for at in range(0, len(read), len(hours))]


async def minutes_by_hour(client: redis.asyncio.Redis, cell: str, subject: str, hour: int) -> dict[int, Used]:
    """Read what gates without ``now`` have counted in the last 8 days, by minutes since the Unix epoch."""
    hours = range(hour - HOURS_KEPT_DAYS * _HOURS_A_DAY + 1, hour + 1)
    pipeline = client.pipeline(transaction=False)
    for one in hours:
        pipeline.hgetall(usage_hour_key(cell, subject, one))
    read: list[Any] = await pipeline.execute()
    return {
        one * _MINUTES_AN_HOUR + minute: used
        for one, fields in zip(hours, read, strict=True)
        for minute, used in by_field(fields).items()
    }


def _sum(fields: Fields | None) -> Used:
    """Add up an hour; one that cannot be read counts nothing."""
    try:
        return sum(by_field(fields or {}).values(), UNUSED)
    except ValueError:
        return UNUSED


def by_field(fields: Fields) -> dict[int, Used]:
    """Read a hash of numbers: ``7`` is the calls of its minute, hour or day 7, ``t7`` the tokens."""
    found: dict[int, Used] = {}
    for field, value in fields.items():
        used = Used(tokens=int(value)) if field.startswith(_TOKENS) else Used(calls=int(value))
        number = int(field.removeprefix(_TOKENS))
        found[number] = found.get(number, UNUSED) + used
    return found
