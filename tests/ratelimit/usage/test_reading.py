"""Usage of admitted calls and of calls that ended, read back: in all, today, by minute, hour and day."""

from __future__ import annotations

import collections

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.names import usage_hour_key, usage_key, usage_past_key
from ratelimit.tokens.ledger import Ledger, Settlement
from ratelimit.usage.facts import Series, Usage, Used
from ratelimit.usage.reading import read_metering, read_usage, read_usages
from ratelimit.usage.series import read_series
from ratelimit.windows.budgets import Answer, Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.support.draws import draw
from tests.support.settlements import settle

MIDNIGHT_MS = 20_000 * 86_400_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
FREE = draw((), usage=("k:1", "p:1"))


async def _usage(redis_url: str, subject: str, now_ms: int) -> Usage:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await read_usage(client, "0", subject, now_ms)


async def test_nothing_used_yet(redis_url: str) -> None:
    """A subject without counters was never called."""
    assert await _usage(redis_url, "p:1", MIDNIGHT_MS) == Usage(0, 0, 0)


async def test_admitted_calls_are_counted(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Each admitted call counts once for each of its usage subjects, whatever its cost; refused ones do not."""
    limited = Subject("p:1", (Budget(Window.MINUTE, 7),))
    charges = [draw((limited,), hits=3, usage=("k:1", "p:1"))] * 3 + [draw((), usage=("p:1",))]
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


def old_gate(store: redis.Redis, subject: str, calls: int, now_ms: int, tokens: int = 0) -> None:
    """What a gate of the version before writes: totals, and each minute into the hash of its hour."""
    hour_key = usage_hour_key("0", subject, now_ms // HOUR_MS)
    minute = now_ms // MINUTE_MS % 60
    if calls:
        store.hincrby(usage_key("0", subject), "total", calls)
        store.hincrby(hour_key, str(minute), calls)
        store.hset(usage_key("0", subject), "last_ms", now_ms)
    if tokens:
        store.hincrby(usage_key("0", subject), "tokens", tokens)
        store.hincrby(hour_key, f"t{minute}", tokens)
    store.expire(hour_key, 8 * 86_400)


def settled(limiter: Limiter, store: redis.Redis, tokens: int, now_ms: int) -> None:
    """A call is admitted and ends at once, at this cost."""
    budget = Subject("k:1", (Budget(Window.TOKENS_HOUR, 10**6),))
    hold = Hold(f"call-{now_ms}", 10**6, 0, 60_000, b"")
    limiter.take(store.execute_command, [draw((budget,), tokens=1, hold=hold, usage=("k:1",))], epoch="", now_ms=now_ms)
    assert settle(store.execute_command, Ledger("0"), [Settlement(hold.id, tokens)], now_ms=now_ms).faults == 0


async def _series(redis_url: str, now_ms: int) -> Series:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await read_series(client, "0", "k:1", now_ms)


async def test_tokens_are_told_beside_calls(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Tokens in all, by minute, hour and day; what was too much is taken back."""
    now_ms = MIDNIGHT_MS + 5 * HOUR_MS + 10 * MINUTE_MS + 1
    for minutes_before, tokens in ((60 * 23, 400), (61, 13), (1, 5), (0, 70)):
        settled(limiter, store, tokens, now_ms - minutes_before * MINUTE_MS)
    series = await _series(redis_url, now_ms)
    assert (series.minutes[-1], series.minutes[-2], series.minutes[-3]) == (Used(1, 70), Used(1, 5), Used())
    assert (series.hours[-1], series.hours[-2], series.hours[-3], series.hours[0]) == (
        Used(2, 75),
        Used(1, 13),
        Used(),
        Used(1, 400),
    )
    day = now_ms // DAY_MS
    assert series.by_day == {day - 1: Used(1, 400), day: Used(3, 88)}
    assert await _usage(redis_url, "k:1", now_ms) == Usage(4, 3, now_ms, 488, now_ms)


async def test_minutes_hours_and_days_are_kept_for_their_time(
    limiter: Limiter, store: redis.Redis, redis_url: str
) -> None:
    """An hour, eight days and thirteen months; the past has an end, and what is over is in all of its own."""
    days = (0, 1, 31, 32, 300, 396, 397)
    last_ms = MIDNIGHT_MS + 397 * DAY_MS + HOUR_MS
    for before in sorted(days, reverse=True):
        for hour in (0, 5):
            limiter.take(store.execute_command, [FREE], epoch="", now_ms=last_ms - before * DAY_MS + hour * HOUR_MS)
    now_ms = last_ms + 5 * HOUR_MS
    series = await _series(redis_url, now_ms)
    assert series.by_day == {now_ms // DAY_MS - before: Used(2) for before in days if before < 397}
    hour = now_ms // HOUR_MS
    assert series.by_hour == {one: Used(1) for one in (hour - 29, hour - 24, hour - 5, hour)}
    assert [*store.scan_iter("tk:usage:{0}:k:1:*")] == [usage_past_key("0", "k:1").encode()]
    assert 397 * 86_400 < store.ttl(usage_past_key("0", "k:1")) <= 398 * 86_400
    assert store.ttl(usage_key("0", "k:1")) == -1


async def test_a_clock_that_steps_back_loses_no_call(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """A minute, an hour or a day that comes again is added to."""
    now_ms = MIDNIGHT_MS + 2 * HOUR_MS
    for steps_ms in (0, -1, 0, -2 * HOUR_MS - 1, 0, -MINUTE_MS, 0):
        limiter.take(store.execute_command, [FREE], epoch="", now_ms=now_ms + steps_ms)
    series = await _series(redis_url, now_ms)
    assert series.minutes[-2:] == (Used(2), Used(4))
    assert (series.hours[-1], series.hours[-2], series.hours[-4]) == (Used(4), Used(2), Used(1))
    assert series.by_day == {now_ms // DAY_MS - 1: Used(1), now_ms // DAY_MS: Used(6)}


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 400), st.sampled_from([1, 7, 60, 61, 1440])),
        max_size=25,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_gates_of_the_version_before_count_beside(
    limiter: Limiter, store: redis.Redis, redis_url: str, calls: list[tuple[bool, int, int, int]]
) -> None:
    """Whoever counted what when: today, every minute, hour and day are what both counted, and the total too."""
    for key in store.scan_iter("tk:usage:*"):
        store.delete(key)
    now_ms, truth = MIDNIGHT_MS, collections.Counter[int]()
    for is_old, count, _, minutes in calls:
        now_ms += minutes * MINUTE_MS
        if count and is_old:
            old_gate(store, "k:1", count, now_ms, tokens=count)
        elif count:
            limiter.take(store.execute_command, [FREE] * count, epoch="", now_ms=now_ms)
        truth[now_ms // MINUTE_MS] += count
        usage = await _usage(redis_url, "k:1", now_ms)
        today = sum(n for at, n in truth.items() if at // 1440 == now_ms // DAY_MS)
        assert (usage.total, usage.today) == (truth.total(), today)
    series = await _series(redis_url, now_ms)
    minute = now_ms // MINUTE_MS
    assert [one.calls for one in series.minutes] == [truth[one] for one in range(minute - 59, minute + 1)]
    for found, width, kept in ((series.by_hour, 60, 192), (series.by_day, 1440, 397)):
        expected = collections.Counter[int]()
        for at, count in truth.items():
            expected[at // width] += count
        first = minute // width - kept + 1
        # hashes of hours of the version before are gone after eight days, and with them their days
        recent = {one: n for one, n in expected.items() if n and one >= first and one * width > minute - 7 * 1440}
        assert {one: used.calls for one, used in found.items() if one in recent} == recent


async def test_a_list_asks_once_and_twice_only_for_what_older_gates_counted_today(
    limiter: Limiter, store: redis.Redis, redis_url: str
) -> None:
    """500 subjects: a command each in one round trip; hashes of hours are read for those that need it alone."""
    names = [f"k:{number}" for number in range(500)]
    for name in names:
        limiter.take(store.execute_command, [draw((), usage=(name,))], epoch="", now_ms=MIDNIGHT_MS)
    old_gate(store, "k:7", 3, MIDNIGHT_MS + HOUR_MS)
    old_gate(store, "k:8", 3, MIDNIGHT_MS - HOUR_MS)
    limiter.take(store.execute_command, [draw((), usage=("k:8",))], epoch="", now_ms=MIDNIGHT_MS)
    store.config_resetstat()
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        found = await read_usages(client, [("0", name) for name in names], MIDNIGHT_MS + 23 * HOUR_MS)
        stats = store.info("commandstats")
        assert stats["cmdstat_hmget"]["calls"] == 500
        assert stats["cmdstat_hgetall"]["calls"] == 2 * 24
        assert [one.today for one in found if one] == [1] * 7 + [4, 2] + [1] * 491
        store.config_resetstat()
        await read_usages(client, [("0", name) for name in names], MIDNIGHT_MS + 24 * HOUR_MS)
        assert "cmdstat_hgetall" not in store.info("commandstats")


async def test_damaged_counters_are_nobody_elses(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Of many read together, those that cannot be read are told so, and the others are read."""
    limiter.take(store.execute_command, [FREE], epoch="", now_ms=MIDNIGHT_MS)
    store.set(usage_key("0", "k:2"), "no hash", px=60_000)
    store.hset(usage_key("0", "k:3"), "total", "no number")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        found = await read_usages(client, [("0", f"k:{number}") for number in range(1, 5)], MIDNIGHT_MS)
    assert found == [Usage(1, 1, MIDNIGHT_MS), None, None, Usage()]


async def test_a_store_that_refuses_to_be_read_is_no_usage(store: redis.Redis, redis_url: str) -> None:
    """It is said; neither that counters are damaged nor that nobody called, of one, of many and of the metering."""
    store.execute_command("ACL", "SETUSER", "unreading", "on", ">x", "~*", "+@all", "-hmget")
    try:
        async with redis.asyncio.Redis.from_url(redis_url, username="unreading", password="x") as client:
            with pytest.raises(redis.exceptions.NoPermissionError):
                await read_usages(client, [("0", "k:1"), ("0", "k:2")], MIDNIGHT_MS)
            with pytest.raises(redis.exceptions.NoPermissionError):
                await read_metering(client, [("0", "p:1")], 0)
    finally:
        store.execute_command("ACL", "DELUSER", "unreading")


def test_written_once_a_flush(limiter: Limiter, store: redis.Redis) -> None:
    """A flush reads and writes each subject once, however many calls it has: two commands each, and two of its own."""
    limiter.take(store.execute_command, [FREE], epoch="", now_ms=MIDNIGHT_MS)
    store.config_resetstat()
    limiter.take(store.execute_command, [FREE] * 50, epoch="", now_ms=MIDNIGHT_MS)
    stats = store.info("commandstats")
    assert [stats[f"cmdstat_{name}"]["calls"] for name in ("hmget", "hset", "get", "set")] == [2, 2, 1, 1]
    assert {"cmdstat_expire", "cmdstat_hincrby"}.isdisjoint(stats)


def test_the_script_that_admits_counts_no_usage(store: redis.Redis) -> None:
    """What is admitted is counted by whoever asked, outside the decision."""
    Limiter(cell="0", epoch_key="tk:epoch:{0}", feed_key="tk:feed:{0}").take(store.execute_command, [FREE], epoch="")
    assert not list(store.scan_iter("tk:*"))
