"""What usage costs the store's memory."""

from __future__ import annotations

import random

import pytest
import redis

from benchmarks.store_memory import NOW_MS, idle_keys, usage_bytes, use_for_13_months
from ratelimit.names import usage_past_key
from ratelimit.usage.counted import Counted
from ratelimit.usage.counting import count

pytestmark = pytest.mark.parametrize("cluster", ["server"], indirect=True)
DAY_MS = 86_400_000


@pytest.mark.parametrize(("tokens_a_call", "most_bytes"), [(0, 2_048), (1_000, 4_000)])
def test_thirteen_months_of_a_busy_key(store: redis.Redis, tokens_a_call: int, most_bytes: int) -> None:
    """A call a second, every minute, hour and day of its time: 4 kB with tokens, half of it without."""
    use_for_13_months(store.execute_command, "k:busy", tokens_a_call)
    assert usage_bytes(store, "k:busy") <= most_bytes


def test_a_key_that_is_hardly_called(store: redis.Redis, redis_url: str) -> None:
    """Its record, its share of the indexes and its usage: 700 bytes."""
    assert sum(idle_keys(store, redis_url)) <= 700


def test_a_day_that_was_out_of_measure_is_not_paid_for_ever(store: redis.Redis) -> None:
    """When its minutes, hours and days are over, those after it are as small as they were; none is told otherwise."""
    chance, sizes = random.Random(1), []  # noqa: S311  a load
    for day in range(500):
        counted = Counted()
        counted.admitted(10**9 if day == 50 else chance.randrange(1, 200), NOW_MS + day * DAY_MS)
        counted.charged(-(10**12) if day == 50 else 0, NOW_MS + day * DAY_MS)
        assert count(store.execute_command, "0", "one", day + 1, [("k:1", counted)]).faults == 0
        sizes.append(store.strlen(usage_past_key("0", "k:1")))
    assert max(sizes[51:440]) > 397 * 9
    assert sizes[-1] < 700
