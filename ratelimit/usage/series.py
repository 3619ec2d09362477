"""Reads a subject's use over time: by minutes, hours and days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import redis.asyncio

from ratelimit.names import usage_key, usage_past_key
from ratelimit.usage import older
from ratelimit.usage.facts import DAYS_KEPT, HOURS_KEPT_DAYS, UNUSED, Series, Used
from ratelimit.usage.now import Now, read_now
from ratelimit.usage.past import read_past
from ratelimit.usage.replies import number

_MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
_HOURS_A_DAY: Final = 24
_MINUTES_A_DAY: Final = _MINUTES_AN_HOUR * _HOURS_A_DAY


async def read_series(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Series:
    """Read a subject's use by minute, hour and day; raises what the client raises."""
    minute = now_ms // _MINUTE_MS
    hour, day = minute // _MINUTES_AN_HOUR, minute // _MINUTES_A_DAY
    keys = older.hash_keys(cell, subject, hour)
    pipeline = client.pipeline(transaction=False)
    pipeline.hmget(usage_key(cell, subject), ["total", "now"])
    pipeline.get(usage_past_key(cell, subject))
    for key in (one for some in keys for one in some):
        pipeline.hgetall(key)
    (total, raw_now), stored, *hashes = await pipeline.execute()
    now, found, read = read_now(raw_now), _Found(), iter(hashes)
    for to, more in zip((found.minutes, found.hours, found.days), read_past(stored), strict=True):
        _add_all(to, more)
    for to, some, width in zip((found.minutes, found.hours, found.days), keys, (60, 24, 0), strict=True):
        _add_all(to, older.numbered(some, [next(read) for _ in some], width))
    found.add_now(now)
    if now.is_joined(number(total), day - HOURS_KEPT_DAYS):
        found.add_minutes(await older.minutes_by_hour(client, cell, subject, hour))
    return found.series(minute)


class _Found:
    """Use by minutes, hours and days since the Unix epoch, as it is put together."""

    def __init__(self) -> None:
        self.minutes: dict[int, Used] = {}
        self.hours: dict[int, Used] = {}
        self.days: dict[int, Used] = {}

    def add_now(self, now: Now) -> None:
        """Add what runs now."""
        _add(self.minutes, now.minute, now.of_minute)
        _add(self.hours, now.minute // _MINUTES_AN_HOUR, now.of_hour)
        _add(self.days, now.minute // _MINUTES_A_DAY, now.of_day)

    def add_minutes(self, minutes: Mapping[int, Used]) -> None:
        """Add minutes whose hours and days are told nowhere else."""
        for minute, used in minutes.items():
            _add(self.minutes, minute, used)
            _add(self.hours, minute // _MINUTES_AN_HOUR, used)
            _add(self.days, minute // _MINUTES_A_DAY, used)

    def series(self, minute: int) -> Series:
        """Cut it to what is told at a minute."""
        hour, day = minute // _MINUTES_AN_HOUR, minute // _MINUTES_A_DAY
        return Series(
            hours=tuple(self.hours.get(one, UNUSED) for one in range(hour - _HOURS_A_DAY + 1, hour + 1)),
            minutes=tuple(self.minutes.get(one, UNUSED) for one in range(minute - _MINUTES_AN_HOUR + 1, minute + 1)),
            by_hour=_since(self.hours, hour - HOURS_KEPT_DAYS * _HOURS_A_DAY + 1),
            by_day=_since(self.days, day - DAYS_KEPT + 1),
        )


def _add(to: dict[int, Used], number: int, used: Used) -> None:
    if used != UNUSED:
        to[number] = to.get(number, UNUSED) + used


def _add_all(to: dict[int, Used], more: Mapping[int, Used]) -> None:
    for each, used in more.items():
        _add(to, each, used)


def _since(found: Mapping[int, Used], first: int) -> dict[int, Used]:
    return {one: found[one] for one in sorted(found) if one >= first}
