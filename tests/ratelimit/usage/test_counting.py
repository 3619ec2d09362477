"""What gates count is written once, whatever gates of the release before write beside them, and read back exactly."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oldusage import OldGate

from ratelimit.names import usage_flush_key, usage_key, usage_past_key
from ratelimit.usage.book import UsageBook
from ratelimit.usage.counting import Flushed, count
from ratelimit.usage.facts import Series, Usage, Used
from ratelimit.usage.past import read_past
from ratelimit.usage.reading import read_usage
from ratelimit.usage.series import read_series

MIDNIGHT_MS = 20_000 * 86_400_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
KEY = ("k:1",)


class Gate:
    """A gate that counts in a book and writes it when it is told to."""

    def __init__(self, execute: Callable[..., Any], name: str = "one") -> None:
        self._execute, self._name, self._flushes = execute, name, 0
        self.book = UsageBook()

    def flush(self) -> Flushed:
        """Write what the book has."""
        self._flushes += 1
        return count(self._execute, "0", self._name, self._flushes, sorted(self.book.drain().items(), key=str))

    def admit(self, subjects: tuple[str, ...], calls: int, now_ms: int) -> None:
        """Count calls and write them."""
        self.book.admitted(subjects, calls, now_ms)
        assert self.flush().faults == 0

    def charge(self, subjects: tuple[str, ...], tokens: int, now_ms: int) -> None:
        """Count tokens and write them."""
        self.book.charged(subjects, tokens, now_ms)
        assert self.flush().faults == 0


@pytest.fixture
def gate(store: redis.Redis) -> Gate:
    """A gate of cell 0."""
    return Gate(store.execute_command)


@pytest.fixture
def old(store: redis.Redis) -> OldGate:
    """A gate of the release before, of the same cell."""
    return OldGate(store.execute_command)


async def _usage(redis_url: str, now_ms: int, subject: str = "k:1") -> Usage:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await read_usage(client, "0", subject, now_ms)


async def _series(redis_url: str, now_ms: int, subject: str = "k:1") -> Series:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await read_series(client, "0", subject, now_ms)


class Truth:
    """What was counted of a subject, by the minute."""

    def __init__(self) -> None:
        self.calls, self.tokens = collections.Counter[int](), collections.Counter[int]()

    def add(self, now_ms: int, calls: int, tokens: int) -> None:
        """Count."""
        self.calls[now_ms // MINUTE_MS] += calls
        self.tokens[now_ms // MINUTE_MS] += tokens

    def by(self, width: int, since: int) -> dict[int, Used]:
        """Use by so many minutes each, from one on."""
        found: dict[int, Used] = {}
        for calls, at in ((self.calls, 0), (self.tokens, 1)):
            for minute, units in calls.items():
                found[minute // width] = found.get(minute // width, Used()) + (Used(0, units) if at else Used(units))
        return {one: used for one, used in found.items() if used != Used() and one >= since}

    def holds(self, usage: Usage, series: Series, now_ms: int) -> None:
        """See that all that is told is this."""
        minute = now_ms // MINUTE_MS
        today = sum(n for at, n in self.calls.items() if at // 1440 == minute // 1440)
        assert (usage.total, usage.today, usage.tokens) == (self.calls.total(), today, self.tokens.total())
        minutes = self.by(1, minute - 59)
        assert list(series.minutes) == [minutes.get(one, Used()) for one in range(minute - 59, minute + 1)]
        assert series.by_hour == self.by(60, minute // 60 - 191)
        assert series.by_day == self.by(1440, minute // 1440 - 396)


_STEPS_MINUTES = st.sampled_from([0, 0, 0, 1, 1, 2, 59, 60, 61, 1439, 1440, 1441, 9 * 1440, 100 * 1440])
_ACTS = st.sampled_from(["old admits", "old settles", "admits", "charges", "late", "settles late"])


@given(st.lists(st.tuples(_ACTS, st.integers(1, 400), _STEPS_MINUTES), max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_gates_of_the_release_before_count_beside(
    store: redis.Redis, redis_url: str, gate: Gate, old: OldGate, acts: list[tuple[str, int, int]]
) -> None:
    """Whoever counts what when, in whatever order it is written: nothing is lost, nothing counted twice."""
    for key in store.scan_iter("tk:*"):
        store.delete(key)
    now_ms, truth = MIDNIGHT_MS + 30 * MINUTE_MS, Truth()
    gate = Gate(store.execute_command)
    for act, units, minutes in acts:
        now_ms += minutes * MINUTE_MS
        late_ms = now_ms - units % 40 * MINUTE_MS if act in {"late", "settles late"} else now_ms
        if "settles" in act or act == "charges":
            if not store.exists(usage_key("0", "k:1")):
                continue
            writes = old.settle if act == "old settles" else gate.charge
            signed = -units if act == "settles late" else units * 1000
            writes(KEY, signed if act != "old settles" else units * 1000, late_ms)
            truth.add(late_ms, 0, signed if act != "old settles" else units * 1000)
        else:
            (old.admit if act == "old admits" else gate.admit)(KEY, units % 50 + 1, late_ms)
            truth.add(late_ms, units % 50 + 1, 0)
        truth.holds(await _usage(redis_url, now_ms), await _series(redis_url, now_ms), now_ms)


@pytest.mark.parametrize("seed", range(3))
async def test_a_year_and_a_month_of_use(redis_url: str, gate: Gate, seed: int) -> None:
    """Small numbers and the largest, tokens taken back, days without use: told exactly for as long as it is kept."""
    rng, truth, now_ms = random.Random(seed), Truth(), MIDNIGHT_MS  # noqa: S311  a history
    for _ in range(700):
        now_ms += rng.choice([1, 1, 30, 60, 700, 3 * 1440]) * MINUTE_MS
        calls, tokens = rng.choice([1, 60, 10**5, 4 * 10**8]), rng.choice([0, 0, -50, 1_000, 10**9, 10**12])
        gate.book.admitted(KEY, calls, now_ms)
        gate.book.charged(KEY, tokens, now_ms)
        assert gate.flush().faults == 0
        truth.add(now_ms, calls, tokens)
    truth.holds(await _usage(redis_url, now_ms), await _series(redis_url, now_ms), now_ms)


async def test_the_past_of_the_release_before_moves_in(
    store: redis.Redis, redis_url: str, gate: Gate, old: OldGate
) -> None:
    """What older gates kept in hashes is taken in by the first minute that ends, all of it, and their hashes go."""
    truth, now_ms = Truth(), MIDNIGHT_MS
    for days in (1, 1, 31, 200, 100, 6, 1, 0, 0):
        now_ms += days * DAY_MS + 61 * MINUTE_MS
        old.admit(KEY, days + 1, now_ms)
        old.settle(KEY, 1000 + days, now_ms)
        truth.add(now_ms, days + 1, 1000 + days)
    assert len([*store.scan_iter("tk:usage:{0}:k:1:[mhd]*")]) > 5
    for minutes in (0, 1):
        now_ms += minutes * MINUTE_MS
        gate.admit(KEY, 1, now_ms)
        truth.add(now_ms, 1, 0)
    truth.holds(await _usage(redis_url, now_ms), await _series(redis_url, now_ms), now_ms)
    hour = now_ms // HOUR_MS
    left = [name.decode().rpartition(":")[2] for name in store.scan_iter("tk:usage:{0}:k:1:[mhd]*")]
    assert {one[0] for one in left} == {"m", "h"}, "those of days long past are taken in too"
    ages = [hour - int(one[1:]) * (1 if one[0] == "m" else 24) for one in left]
    assert min(ages) > 2, "what is left are minutes and hours that are over, whose hashes end by themselves"
    assert 397 * DAY_MS < store.pttl(usage_past_key("0", "k:1")) <= 398 * DAY_MS


async def test_a_flush_is_written_once(store: redis.Redis, redis_url: str) -> None:
    """However often it is sent; the next one of the same gate, and others' of the same number, count."""
    book = UsageBook()
    book.admitted(("k:1", "p:1"), 3, MIDNIGHT_MS)
    book.charged(("k:1", "p:1"), 70, MIDNIGHT_MS)
    told = list(book.drain().items())
    for number, name in ((1, "one"), (1, "one"), (1, "two"), (2, "one"), (1, "one")):
        assert count(store.execute_command, "0", name, number, told).faults == 0
    assert await _usage(redis_url, MIDNIGHT_MS, "p:1") == Usage(9, 9, MIDNIGHT_MS, 210)
    assert 0 < store.pttl(usage_flush_key("0", "one")) <= HOUR_MS


def test_a_call_that_ended_makes_no_usage(store: redis.Redis, gate: Gate) -> None:
    """What has none went with its owner, or its calls are not written yet: it is said, to be tried again."""
    gate.book.charged(("k:1", "k:2"), 70, MIDNIGHT_MS)
    gate.book.admitted(("k:2",), 1, MIDNIGHT_MS)
    gate.book.told("p:1", MIDNIGHT_MS, 0, None)
    gate.book.presumed("p:2", MIDNIGHT_MS)
    flushed = gate.flush()
    assert (flushed.faults, sorted(flushed.missing)) == (0, ["k:1", "p:1", "p:2"])
    assert [*store.scan_iter("tk:usage:{0}:[kp]:*")] == [b"tk:usage:{0}:k:2"]


async def test_use_of_what_is_gone_ends_with_it(store: redis.Redis, gate: Gate) -> None:
    """A call counted a moment after its key was removed: its usage ends in its time, and says whose it was."""
    store.set("tk:usage:{0}:k:1:gone", "tenant-a", ex=60)
    gate.admit(("k:1", "p:1"), 1, MIDNIGHT_MS)
    assert store.hget(usage_key("0", "k:1"), "tenant") == b"tenant-a"
    assert 396 * 86_400 < store.ttl(usage_key("0", "k:1")) <= 397 * 86_400
    assert store.ttl(usage_key("0", "p:1")) == -1


@pytest.mark.parametrize("broken", ["{}", "{}:past"])
def test_a_broken_counter_is_nobody_elses(store: redis.Redis, gate: Gate, broken: str) -> None:
    """What is of a foreign type is left as it is and said; the others of the flush are written."""
    gate.admit(("k:1", "p:1"), 1, MIDNIGHT_MS)
    name = broken.format(usage_key("0", "k:1"))
    store.delete(name)
    store.lpush(name, "what is this")
    store.expire(name, 60)
    gate.book.admitted(("k:1", "p:1"), 1, MIDNIGHT_MS + MINUTE_MS)
    assert gate.flush().faults == 1
    assert store.hget(usage_key("0", "p:1"), "total") == b"2"
    assert store.type(name) == b"list"


def test_a_past_of_another_form_begins_anew(store: redis.Redis, gate: Gate) -> None:
    """It is said once; what is counted from then on is kept."""
    for garbage in (b"", b"\2" * 40, b"\1\0\0\0" + b"\xff" * 40):
        gate.admit(KEY, 1, MIDNIGHT_MS)
        store.set(usage_past_key("0", "k:1"), garbage, ex=60)
        now_ms = MIDNIGHT_MS
        for faults in (1, 0):
            now_ms += MINUTE_MS
            gate.book.admitted(KEY, 1, now_ms)
            assert gate.flush().faults == faults
        store.delete(usage_key("0", "k:1"))


def test_a_past_of_the_largest_numbers_can_be_read_again(gate: Gate, store: redis.Redis) -> None:
    """Many calls, very many tokens, few calls again, and then tokens taken back: nothing makes it begin anew."""
    counted = [(0, 10_000, 0), (190, 3, 2**46), (216, 1, 0), (217, 2**25, 0), (218, 1, -5), (219, 1, 0), (220, 1, 0)]
    for hour, calls, tokens in counted:
        gate.admit(KEY, calls, MIDNIGHT_MS + hour * HOUR_MS)
        gate.charge(KEY, tokens, MIDNIGHT_MS + hour * HOUR_MS)
    past = read_past(store.get(usage_past_key("0", "k:1")))  # type: ignore[arg-type]
    assert {hour - MIDNIGHT_MS // HOUR_MS: used for hour, used in past.hours.items()} == {
        hour: Used(calls, tokens) for hour, calls, tokens in counted[1:-1]
    }
