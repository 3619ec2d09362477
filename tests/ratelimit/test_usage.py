"""Usage is counted by the script that admits, once per batch and subject, and read back by day."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio

from ratelimit.budgets import Answer, Budget, Charge, Subject, Window
from ratelimit.limiter import Limiter
from ratelimit.names import usage_hour_key, usage_key
from ratelimit.usage import Usage, Used, read_series, read_usage

MIDNIGHT_MS = 20_000 * 86_400_000
HOUR_MS = 3_600_000
FREE = Charge((), usage=("k:1", "p:1"))


async def _usage(redis_url: str, subject: str, now_ms: int) -> Usage:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await read_usage(client, "0", subject, now_ms)


async def test_nothing_used_yet(redis_url: str) -> None:
    """A subject without counters was never called."""
    assert await _usage(redis_url, "p:1", MIDNIGHT_MS) == Usage(0, 0, 0)


async def test_admitted_calls_are_counted(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Each admitted call counts once for each of its usage subjects, whatever its cost; refused ones do not."""
    limited = Subject("p:1", (Budget(Window.MINUTE, 7),))
    charges = [Charge((limited,), cost=3, usage=("k:1", "p:1"))] * 3 + [Charge((), usage=("p:1",))]
    taken = limiter.take(store.execute_command, charges, epoch="", now_ms=MIDNIGHT_MS)
    assert [grant.answer is Answer.ADMITTED for grant in taken.grants] == [True, True, False, True]
    assert await _usage(redis_url, "k:1", MIDNIGHT_MS) == Usage(2, 2, MIDNIGHT_MS)
    assert await _usage(redis_url, "p:1", MIDNIGHT_MS) == Usage(3, 3, MIDNIGHT_MS)


async def test_today_is_the_utc_day(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Calls before midnight UTC count in the total and not in today; the day's first and last hour count."""
    for now_ms in (MIDNIGHT_MS - 1, MIDNIGHT_MS, MIDNIGHT_MS + 23 * HOUR_MS + 1):
        limiter.take(store.execute_command, [FREE, FREE], epoch="", now_ms=now_ms)
    last_ms = MIDNIGHT_MS + 23 * HOUR_MS + 1
    assert await _usage(redis_url, "p:1", last_ms) == Usage(6, 4, last_ms)
    assert await _usage(redis_url, "p:1", MIDNIGHT_MS + 24 * HOUR_MS) == Usage(6, 0, last_ms)


async def test_calls_over_time(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """The last 24 clock hours and 60 clock minutes, the oldest first; what is older is in neither."""
    now_ms = MIDNIGHT_MS + 5 * HOUR_MS + 10 * 60_000 + 1
    ago_ms = {0: 1, 59: 2, 60: 4, 60 * 5: 8, 60 * 23: 16, 60 * 24: 32}  # minutes before -> calls
    for minutes, calls in sorted(ago_ms.items(), reverse=True):
        limiter.take(store.execute_command, [FREE] * calls, epoch="", now_ms=now_ms - minutes * 60_000)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        series = await read_series(client, "0", "k:1", now_ms)
    assert (len(series.hours), len(series.minutes)) == (24, 60)
    minutes, hours = [used.calls for used in series.minutes], [used.calls for used in series.hours]
    assert (minutes[-1], minutes[0], sum(minutes)) == (1, 2, 3)
    assert (hours[-1], hours[-2], hours[-6], hours[0]) == (1, 6, 8, 16)
    assert sum(hours) == 31


async def test_tokens_are_told_beside_calls(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Tokens in all, by hour and by minute; no call is counted for them, and a minute may have only one of the two."""
    now_ms = MIDNIGHT_MS + 5 * HOUR_MS + 10 * 60_000 + 1
    limiter.take(store.execute_command, [FREE] * 3, epoch="", now_ms=now_ms)
    store.hset(usage_key("0", "k:1"), "tokens", 1_234)
    for hours_before, fields in {0: {"t10": 70, "t9": 5}, 1: {"t59": 11, "t11": 2}, 23: {"t0": 400}}.items():
        store.hset(usage_hour_key("0", "k:1", now_ms // HOUR_MS - hours_before), mapping=fields)
    assert await _usage(redis_url, "k:1", now_ms) == Usage(3, 3, now_ms, 1_234)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        series = await read_series(client, "0", "k:1", now_ms)
    assert (series.minutes[-1], series.minutes[-2], series.minutes[-12]) == (Used(3, 70), Used(0, 5), Used(0, 11))
    assert (series.hours[-1], series.hours[-2], series.hours[0]) == (Used(3, 75), Used(0, 13), Used(0, 400))
    assert sum(used.tokens for used in series.minutes) == 88


def test_minutes_of_an_hour_in_one_hash(limiter: Limiter, store: redis.Redis) -> None:
    """The hour comes from the store's clock, minutes are its fields, and it ends after eight days."""
    for minute, calls in ((0, 1), (0, 2), (59, 3)):
        limiter.take(store.execute_command, [FREE] * calls, epoch="", now_ms=MIDNIGHT_MS + minute * 60_000)
    hour_key = usage_hour_key("0", "p:1", MIDNIGHT_MS // HOUR_MS)
    assert store.hgetall(hour_key) == {b"0": b"3", b"59": b"3"}
    assert 7.9 * 86_400 < store.ttl(hour_key) <= 8 * 86_400
    assert store.ttl(usage_key("0", "p:1")) == -1


def test_written_once_a_batch(limiter: Limiter, store: redis.Redis) -> None:
    """A batch writes each usage subject once, however many calls it has."""
    limiter.take(store.execute_command, [FREE], epoch="", now_ms=MIDNIGHT_MS)
    store.config_resetstat()
    limiter.take(store.execute_command, [FREE] * 50, epoch="", now_ms=MIDNIGHT_MS)
    stats = store.info("commandstats")
    assert stats["cmdstat_hincrby"]["calls"] == 4
    assert stats["cmdstat_hset"]["calls"] == 2
    assert "cmdstat_expire" not in stats


@pytest.mark.parametrize("broken", [usage_key("0", "p:1"), usage_hour_key("0", "p:1", MIDNIGHT_MS // HOUR_MS)])
def test_a_broken_counter_stops_no_call(limiter: Limiter, store: redis.Redis, broken: str) -> None:
    """Usage that cannot be written is reported; the call and the other subject's usage stand."""
    store.set(broken, "no hash", px=60_000)
    taken = limiter.take(store.execute_command, [FREE], epoch="", now_ms=MIDNIGHT_MS)
    assert (taken.grants[0].answer, taken.usage_faults) == (Answer.ADMITTED, 1)
    assert store.hget(usage_key("0", "k:1"), "total") == b"1"
