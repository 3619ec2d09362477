"""Reads the usage that ``lua/count.lua`` writes: calls and tokens in all and today, and how calls end.

Knows usage subjects by name only. Days are UTC days of the caller's ``now_ms``, which is the store's clock. Use over
time is read by ``ratelimit.usage.series``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import redis.asyncio

from ratelimit.names import usage_key
from ratelimit.usage import older
from ratelimit.usage.facts import UNUSED, Signs, Usage, Used
from ratelimit.usage.now import read_now
from ratelimit.usage.replies import number, undamaged

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_MINUTES_A_DAY: Final = 24 * 60


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

    A second round trip reads what gates without ``now`` counted today, where they did. Raises what the client
    raises.
    """
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), _FIELDS)
    found = [_counted(reply, now_ms) for reply in await pipeline.execute(raise_on_error=False)]
    joined = [one for one, counted in zip(subjects, found, strict=True) if counted and counted[1]]
    more = dict(zip(joined, await older.calls_of_day(client, joined, now_ms), strict=True)) if joined else {}
    return [
        counted and replace(counted[0], today=counted[0].today + more.get(one, 0))
        for one, counted in zip(subjects, found, strict=True)
    ]


def _counted(reply: Any, now_ms: int) -> tuple[Usage, bool] | None:
    """Read a hash: the usage by what it says itself, and whether older gates may have counted today."""
    if (fields := undamaged(reply)) is None:
        return None
    try:
        total, last_ms, tokens, settled_ms, unsettled, estimated = map(number, fields[:6])
    except ValueError:
        return None
    now, above = read_now(fields[6]), _above(fields[7:], now_ms)
    today = now_ms // _DAY_MS
    counted = now.of_day.calls if now.minute // _MINUTES_A_DAY == today else 0
    is_joined = last_ms // _DAY_MS >= today and now.is_joined(total, today)
    return Usage(total, counted, last_ms, tokens, settled_ms, unsettled, estimated, above), is_joined


_ABOVE: Final = ("above", "above_before")
_METERING: Final = ("settled_ms", "unsettled", "estimated")
_FIELDS: Final = ["total", "last_ms", "tokens", *_METERING, "now", *_ABOVE]


def _above(fields: Sequence[bytes | None], now_ms: int) -> Used:
    """Read what cost more than it held, in this clock hour and the one before; what cannot be read says nothing."""
    found = UNUSED
    for field in fields:
        try:
            hour, calls, tokens = map(int, (field or b"").split())
        except ValueError:
            continue
        if hour >= now_ms // _HOUR_MS - 1:
            found += Used(calls, tokens)
    return found


async def read_metering(
    client: redis.asyncio.Redis, subjects: Sequence[tuple[str, str]], now_ms: int
) -> list[Signs | None]:
    """Read of publications, each a cell and a subject, what is told of them: ``None`` where that is damaged.

    Raises what the client raises.
    """
    pipeline = client.pipeline(transaction=False)
    for cell, subject in subjects:
        pipeline.hmget(usage_key(cell, subject), [*_METERING, *_ABOVE])
    return [_signs(reply, now_ms) for reply in await pipeline.execute(raise_on_error=False)]


def _signs(reply: Any, now_ms: int) -> Signs | None:
    if (fields := undamaged(reply)) is None:
        return None
    try:
        settled_ms, unsettled, estimated = map(number, fields[:3])
    except ValueError:
        return None
    told = Usage(settled_ms=settled_ms, unsettled=unsettled, estimated=estimated)
    return Signs(told.metering, _above(fields[3:], now_ms).calls)


async def read_past_owner(client: redis.asyncio.Redis, cell: str, subject: str) -> str | None:
    """Say whose a subject was that is no more and whose usage is still kept; ``""`` where that is lost."""
    (owner,) = await client.hmget(usage_key(cell, subject), ["tenant"])
    return owner.decode("utf-8", "replace") if isinstance(owner, bytes) else owner
