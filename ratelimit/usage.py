"""Reads the usage that ``take.lua`` and ``settle.lua`` count: calls and tokens in all, today, and over time.

Knows usage subjects by name only. Days are UTC days of the caller's ``now_ms``, which is the store's clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio

from ratelimit.names import usage_hour_key, usage_key

_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_MINUTES_AN_HOUR: Final = 60
_HOURS_A_DAY: Final = 24
_TOKENS: Final = b"t"

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


def hours_of_day(now_ms: int) -> range:
    """Return the hours since the Unix epoch that belong to the UTC day of ``now_ms``, up to its own."""
    hour = now_ms // _HOUR_MS
    return range(hour - hour % _HOURS_A_DAY, hour + 1)


async def read_usage(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Usage:
    """Read a subject's usage in one round trip; raises what the client raises, ``ValueError`` where it is damaged."""
    (found,) = await read_usages(client, [(cell, subject)], now_ms)
    if found is None:
        raise ValueError(f"the usage of {subject} cannot be read")
    return found


async def read_usages(
    client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]], now_ms: int
) -> list[Usage | None]:
    """Read the usage of subjects, each a cell and a name, in one round trip: ``None`` where it is damaged.

    Raises what the client raises.
    """
    hours = hours_of_day(now_ms)
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), ["total", "last_ms", "tokens", "settled_ms", "unsettled"])
        for hour in hours:
            pipeline.hgetall(usage_hour_key(cell, subject, hour))
    replies = await pipeline.execute(raise_on_error=False)
    width = 1 + len(hours)
    return [_usage(replies[at : at + width]) for at in range(0, len(replies), width)]


def _usage(replies: Sequence[Any]) -> Usage | None:
    try:
        (total, last_ms, tokens, settled_ms, unsettled), *hours = replies
        return Usage(
            total=_number(total),
            today=sum(map(_calls, hours)),
            last_access_ms=_number(last_ms),
            tokens=_number(tokens),
            settled_ms=_number(settled_ms),
            unsettled=_number(unsettled),
        )
    except (TypeError, ValueError, AttributeError):  # a refusal in place of a reply, or no number
        return None


async def read_metering(client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]]) -> list[Metering]:
    """Read of publications, each a cell and a subject, whether they are told of; raises what the client raises."""
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), ["settled_ms", "unsettled"])
    read = await pipeline.execute()
    return [Usage(settled_ms=_number(at_ms), unsettled=_number(calls)).metering for at_ms, calls in read]


async def read_series(client: redis.asyncio.Redis, cell: str, subject: str, now_ms: int) -> Series:
    """Read a subject's last day by hour and last hour by minute in one round trip; raises what the client raises."""
    hour, minute = now_ms // _HOUR_MS, now_ms // _MINUTE_MS
    first_hour = hour - _HOURS_A_DAY + 1
    pipeline = client.pipeline(transaction=False)
    for one in range(first_hour, hour + 1):
        pipeline.hgetall(usage_hour_key(cell, subject, one))
    hours = [_by_minute(fields) for fields in await pipeline.execute()]
    by_minute = {
        (first_hour + position) * _MINUTES_AN_HOUR + minute_of_hour: used
        for position, minutes in enumerate(hours)
        for minute_of_hour, used in minutes.items()
    }
    return Series(
        hours=tuple(map(_in_all, hours)),
        minutes=tuple(by_minute.get(one, UNUSED) for one in range(minute - _MINUTES_AN_HOUR + 1, minute + 1)),
    )


def _calls(fields: Mapping[bytes, bytes]) -> int:
    return sum(int(calls) for field, calls in fields.items() if not field.startswith(_TOKENS))


def _by_minute(fields: Mapping[bytes, bytes]) -> dict[int, Used]:
    """Read an hour's hash: ``7`` is the calls of its minute 7, ``t7`` the tokens."""
    minutes: dict[int, Used] = {}
    for field, value in fields.items():
        used = Used(tokens=int(value)) if field.startswith(_TOKENS) else Used(calls=int(value))
        minute = int(field.removeprefix(_TOKENS))
        minutes[minute] = minutes.get(minute, UNUSED) + used
    return minutes


def _in_all(minutes: Mapping[int, Used]) -> Used:
    return sum(minutes.values(), UNUSED)


def _number(raw: Any) -> int:
    return int(raw or 0)
