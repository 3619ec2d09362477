"""Reads the usage that ``take.lua`` and ``settle.lua`` count: calls and tokens in all, today, and over time.

Knows usage subjects by name only. Days are UTC days of the caller's ``now_ms``, which is the store's clock.

What is counted now stands in one field of a subject's hash, ``now``; a minute, an hour or a day that is over has gone
to the hash of its hour, day or 32 days. Gates of the version before wrote a hash for each hour and nothing into
``now``; what they wrote is summed into all answers while it lives (8 days), also while they count beside newer ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import redis.asyncio

from ratelimit.names import (
    DAYS_A_HASH,
    usage_days_key,
    usage_hour_key,
    usage_hours_key,
    usage_key,
    usage_minutes_key,
)

_MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
_HOURS_A_DAY: Final = 24
_MINUTES_A_DAY: Final = _MINUTES_AN_HOUR * _HOURS_A_DAY
_TOKENS: Final = b"t"
_WRONG_TYPE: Final = "WRONGTYPE"
HOURS_KEPT_DAYS: Final = 8
DAYS_KEPT: Final = 397  # 13 months

MISSING_AFTER: Final = 20
"""So many calls in a row that nobody settled are no accident: a proxy that crashed, a gate that was away."""


class Metering(enum.StrEnum):
    """Whether it is told how a publication's calls end, without which each is charged what it was presumed to cost."""

    UNPROVED = "unproved"  # nobody told of any yet, nor were there enough that should have been told of
    SEEN = "seen"  # told of, the latest ones too as far as is known
    MISSING = "missing"  # 20 calls since anybody told have ended untold


@dataclass(frozen=True, slots=True)
class Usage:
    """What a subject was used."""

    total: int = 0  # admitted calls since its counters began
    today: int = 0  # admitted calls since midnight UTC
    last_access_ms: int = 0  # store time of the last admitted call; 0: none yet
    tokens: int = 0  # charged to calls that have ended, since its counters began
    settled_ms: int = 0  # of a publication: store time at which the end of a call was last told; 0: of none yet
    unsettled: int = 0  # of a publication: calls admitted since then whose end nobody told in time

    @property
    def metering(self) -> Metering:
        """Whether it is told how a publication's calls end."""
        if self.unsettled >= MISSING_AFTER:
            return Metering.MISSING
        return Metering.SEEN if self.settled_ms else Metering.UNPROVED


@dataclass(frozen=True, slots=True)
class Used:
    """What a subject was used in one stretch of time."""

    calls: int = 0  # admitted in it
    tokens: int = 0  # charged in it, to calls that ended in it

    def __add__(self, other: Used) -> Used:
        """The use of both stretches."""
        return Used(self.calls + other.calls, self.tokens + other.tokens)


UNUSED: Final = Used()


@dataclass(frozen=True, slots=True)
class Series:
    """A subject's use over time, the oldest first; the last of each is still running."""

    hours: tuple[Used, ...]  # of the last 24 clock hours
    minutes: tuple[Used, ...]  # of the last 60 clock minutes
    by_hour: Mapping[int, Used]  # hours since the Unix epoch in which it was used, of the last 8 days
    by_day: Mapping[int, Used]  # days since the Unix epoch likewise, of the last 13 months


@dataclass(frozen=True, slots=True)
class _Now:
    """What is counted now, as the scripts' field ``now`` says."""

    minute: int = 0  # since the Unix epoch
    of_minute: Used = UNUSED
    of_hour: Used = UNUSED
    of_day: Used = UNUSED
    seen: int = 0  # the total when a gate of this form wrote it last
    old_day: int = 0  # since the Unix epoch, when it was last found to be another

    def is_joined(self, total: int, since_day: int) -> bool:
        """Whether gates of the version before may have counted since a day."""
        return total != self.seen or self.old_day >= since_day


_WIDTHS: Final = (4, 4, 6, 4, 6, 5, 7, 7, 3)  # bytes of each number of ``now``, little-endian
_NOW_BYTES: Final = sum(_WIDTHS)
_SIGNED: Final = frozenset({2, 4, 6})  # tokens, which a late settlement takes back


def hours_of_day(now_ms: int) -> range:
    """Return the hours since the Unix epoch that belong to the UTC day of ``now_ms``, up to its own."""
    hour = now_ms // _MINUTE_MS // _MINUTES_AN_HOUR
    return range(hour - hour % _HOURS_A_DAY, hour + 1)


async def read_usage(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Usage:
    """Read a subject's usage; raises what the client raises, ``ValueError`` where it is damaged."""
    (found,) = await read_usages(client, [(cell, subject)], now_ms)
    if found is None:
        raise ValueError(f"the usage of {subject} cannot be read")
    return found


async def read_usages(
    client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]], now_ms: int
) -> list[Usage | None]:
    """Read the usage of subjects, each a cell and a name, in one round trip: ``None`` where it is damaged.

    A second round trip reads what gates of the version before counted today, where they did. Raises what the client
    raises.
    """
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), ["total", "last_ms", "tokens", "settled_ms", "unsettled", "now"])
    found = [_counted(reply, now_ms) for reply in await pipeline.execute(raise_on_error=False)]
    joined = [one for one, counted in zip(subjects, found, strict=True) if counted and counted[1]]
    more = dict(zip(joined, await _old_calls(client, joined, now_ms), strict=True)) if joined else {}
    return [
        counted and replace(counted[0], today=counted[0].today + more.get(one, 0))
        for one, counted in zip(subjects, found, strict=True)
    ]


def _counted(reply: Any, now_ms: int) -> tuple[Usage, bool] | None:
    """Read a hash: the usage by what it says itself, and whether older gates may have counted today."""
    if (fields := _undamaged(reply)) is None:
        return None
    try:
        total, last_ms, tokens, settled_ms, unsettled = map(_number, fields[:5])
    except ValueError:
        return None
    now = _now(fields[5])
    today = now_ms // _MINUTE_MS // _MINUTES_A_DAY
    counted = now.of_day.calls if now.minute // _MINUTES_A_DAY == today else 0
    is_joined = last_ms // _MINUTE_MS // _MINUTES_A_DAY >= today and now.is_joined(total, today)
    return Usage(total, counted, last_ms, tokens, settled_ms, unsettled), is_joined


async def _old_calls(client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]], now_ms: int) -> list[int]:
    """Read how many calls of today the version before has counted."""
    hours = hours_of_day(now_ms)
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        for hour in hours:
            pipeline.hgetall(usage_hour_key(cell, subject, hour))
    read = [_old_sum(_undamaged(reply)).calls for reply in await pipeline.execute(raise_on_error=False)]
    return [sum(read[at : at + len(hours)]) for at in range(0, len(read), len(hours))]


def _old_sum(fields: Mapping[bytes, bytes] | None) -> Used:
    """Add up an hour; one that cannot be read counts nothing."""
    try:
        return sum(_by_field(fields or {}).values(), UNUSED)
    except ValueError:
        return UNUSED


async def read_metering(client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]]) -> list[Metering | None]:
    """Read of publications, each a cell and a subject, whether they are told of: ``None`` where that is damaged.

    Raises what the client raises.
    """
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), ["settled_ms", "unsettled"])
    return [_metering(reply) for reply in await pipeline.execute(raise_on_error=False)]


def _metering(reply: Any) -> Metering | None:
    if (fields := _undamaged(reply)) is None:
        return None
    try:
        settled_ms, unsettled = map(_number, fields)
    except ValueError:
        return None
    return Usage(settled_ms=settled_ms, unsettled=unsettled).metering


async def read_past_owner(client: redis.asyncio.Redis, cell: str, subject: str) -> str | None:
    """Say whose a subject was that is no more and whose usage is still kept; ``""`` where that is lost."""
    (owner,) = await client.hmget(usage_key(cell, subject), ["tenant"])
    return owner.decode("utf-8", "replace") if isinstance(owner, bytes) else owner


async def read_series(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Series:
    """Read a subject's use by minute, hour and day; raises what the client raises."""
    minute = now_ms // _MINUTE_MS
    hour, day = minute // _MINUTES_AN_HOUR, minute // _MINUTES_A_DAY
    hours, days = (hour - 1, hour), range(day - HOURS_KEPT_DAYS, day + 1)
    blocks = range(day - DAYS_KEPT, day + DAYS_A_HASH, DAYS_A_HASH)
    pipeline = client.pipeline(transaction=False)
    pipeline.hmget(usage_key(cell, subject), ["total", "now"])
    for key in (
        *(usage_minutes_key(cell, subject, one) for one in hours),
        *(usage_hours_key(cell, subject, one) for one in days),
        *dict.fromkeys(usage_days_key(cell, subject, min(one, day)) for one in blocks),
    ):
        pipeline.hgetall(key)
    (total, raw_now), *read = await pipeline.execute()
    now, found = _now(raw_now), _Found()
    found.add(zip(hours, read, strict=False), found.minutes, _MINUTES_AN_HOUR)
    found.add(zip(days, read[len(hours) :], strict=False), found.hours, _HOURS_A_DAY)
    found.add(((0, fields) for fields in read[len(hours) + len(days) :]), found.days, 0)
    found.add_now(now)
    if now.is_joined(_number(total), day - HOURS_KEPT_DAYS):
        found.add_old(await _old_hours(client, cell, subject, hour))
    return found.series(minute)


async def _old_hours(
    client: redis.asyncio.Redis, cell: str, subject: str, hour: int
) -> dict[int, Mapping[bytes, bytes]]:
    """Read what the version before has counted, by hours since the Unix epoch."""
    hours = range(hour - HOURS_KEPT_DAYS * _HOURS_A_DAY + 1, hour + 1)
    pipeline = client.pipeline(transaction=False)
    for one in hours:
        pipeline.hgetall(usage_hour_key(cell, subject, one))
    return dict(zip(hours, await pipeline.execute(), strict=True))


class _Found:
    """Use by minutes, hours and days since the Unix epoch, as it is put together."""

    def __init__(self) -> None:
        self.minutes: dict[int, Used] = {}
        self.hours: dict[int, Used] = {}
        self.days: dict[int, Used] = {}

    def add(self, read: Iterable[tuple[int, Mapping[bytes, bytes]]], to: dict[int, Used], width: int) -> None:
        """Add hashes, each with the number of what it is of, in which there are ``width`` of theirs."""
        for number, fields in read:
            for field, used in _by_field(fields).items():
                _add(to, number * width + field, used)

    def add_now(self, now: _Now) -> None:
        """Add what no hash has yet."""
        _add(self.minutes, now.minute, now.of_minute)
        _add(self.hours, now.minute // _MINUTES_AN_HOUR, now.of_hour)
        _add(self.days, now.minute // _MINUTES_A_DAY, now.of_day)

    def add_old(self, read: Mapping[int, Mapping[bytes, bytes]]) -> None:
        """Add hours of the version before, whose hours and days are only in their minutes."""
        for hour, fields in read.items():
            for minute, used in _by_field(fields).items():
                _add(self.minutes, hour * _MINUTES_AN_HOUR + minute, used)
                _add(self.hours, hour, used)
                _add(self.days, hour // _HOURS_A_DAY, used)

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


def _since(found: Mapping[int, Used], first: int) -> dict[int, Used]:
    return {one: found[one] for one in sorted(found) if one >= first}


def _by_field(fields: Mapping[bytes, bytes]) -> dict[int, Used]:
    """Read a hash of numbers: ``7`` is the calls of its minute, hour or day 7, ``t7`` the tokens."""
    found: dict[int, Used] = {}
    for field, value in fields.items():
        used = Used(tokens=int(value)) if field.startswith(_TOKENS) else Used(calls=int(value))
        number = int(field.removeprefix(_TOKENS))
        found[number] = found.get(number, UNUSED) + used
    return found


def _now(raw: bytes | None) -> _Now:
    """Read the field ``now``; one of another length is none, as the scripts have it."""
    if raw is None or len(raw) != _NOW_BYTES:
        return _Now()
    numbers, at = [], 0
    for place, width in enumerate(_WIDTHS):
        numbers.append(int.from_bytes(raw[at : at + width], "little", signed=place in _SIGNED))
        at += width
    minute, mc, mt, hc, ht, dc, dt, seen, old_day = numbers
    return _Now(minute, Used(mc, mt), Used(hc, ht), Used(dc, dt), seen, old_day)


def _undamaged(reply: Any) -> Any:
    """Give one reply of a pipeline, ``None`` where what is stored is no hash; raises what is wrong with the store."""
    if not isinstance(reply, Exception):
        return reply
    if _WRONG_TYPE in str(reply):
        return None
    raise reply


def _number(raw: Any) -> int:
    return int(raw or 0)
