"""Whether it is told how a publication's calls end: not proved, seen, or missing. On a real Valkey."""

from __future__ import annotations

import itertools

import pytest
import redis
import redis.asyncio

from ratelimit.names import held_key, usage_key
from ratelimit.tokens.ledger import Ledger, Outcome, Settlement
from ratelimit.usage.facts import ESTIMATED_AFTER, MISSING_AFTER, Metering, Signs, Usage
from ratelimit.usage.reading import read_metering, read_usage
from ratelimit.windows.budgets import Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.support.draws import draw
from tests.support.settlements import settle, settle_and_write

NOW_MS = 1_800_000_000_000
PATIENCE_MS = 5_000
LATER_MS = NOW_MS + 10 * PATIENCE_MS
PUBLICATION = Subject("p:1", (Budget(Window.TOKENS_HOUR, 10**6),))
LEDGER = Ledger("0")
UNPROVED, SEEN, MISSING, ESTIMATED = Metering.UNPROVED, Metering.SEEN, Metering.MISSING, Metering.ESTIMATED


class Calls:
    """Calls of one publication, by one key."""

    def __init__(self, limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
        self._limiter, self._store, self._url = limiter, store, redis_url
        self._ids = itertools.count()

    def admit(self, count: int = 1, *, now_ms: int = NOW_MS, subject: Subject = PUBLICATION) -> list[str]:
        """Admit so many; the ids of their reservations."""
        ids = [f"call-{next(self._ids)}" for _ in range(count)]
        charges = [
            draw((subject,), tokens=30, hold=Hold(one, 40, 20, PATIENCE_MS, b""), usage=("k:1", subject.name))
            for one in ids
        ]
        self._limiter.take(self._store.execute_command, charges, epoch="", now_ms=now_ms)
        return ids

    def end(
        self, *ids: str, now_ms: int = NOW_MS, is_told: bool = True, above: int = 0, usage: bool | None = None
    ) -> tuple[Outcome, ...]:
        """Settle them, as their proxy told, or as given back because nobody was answered."""
        ends = [Settlement(one, 10, is_told=is_told, above=above, usage=usage) for one in ids]
        settled = settle(self._store.execute_command, LEDGER, ends, sweep=0, now_ms=now_ms)
        assert settled.faults == 0
        return settled.outcomes

    def sweep(self, now_ms: int) -> int:
        """Sweep those that are overdue; how many were presumed."""
        swept = settle(self._store.execute_command, LEDGER, [], sweep=1_000, now_ms=now_ms)
        assert swept.faults == 0
        return swept.presumed

    def lose(self, count: int, *, now_ms: int = NOW_MS) -> None:
        """Admit so many of which nobody tells, until they are presumed."""
        self.admit(count, now_ms=now_ms)
        assert self.sweep(now_ms + PATIENCE_MS) == count

    async def usage(self, subject: str = "p:1", now_ms: int = LATER_MS) -> Usage:
        """What is told of a subject."""
        async with redis.asyncio.Redis.from_url(self._url) as client:
            return await read_usage(client, "0", subject, now_ms)

    async def metering(self) -> Metering:
        """What is told of the publication: the same by itself as among many."""
        async with redis.asyncio.Redis.from_url(self._url) as client:
            among = await read_metering(client, [("0", "p:other"), ("0", "p:1")], LATER_MS)
        own = (await self.usage()).metering
        assert among == [Signs(), Signs(own)]
        return own


@pytest.fixture
def calls(limiter: Limiter, store: redis.Redis, redis_url: str) -> Calls:
    """The publication's calls."""
    return Calls(limiter, store, redis_url)


async def test_unproved_until_the_first_end_is_told(calls: Calls) -> None:
    """An admission proves nothing, nor does a call that was given back; the first settlement does."""
    assert await calls.metering() is UNPROVED
    one, other, third = calls.admit(3)
    calls.end(one, is_told=False)
    assert await calls.metering() is UNPROVED
    calls.end("unknown")
    assert await calls.metering() is UNPROVED
    calls.end(other)
    assert await calls.metering() is SEEN
    calls.end(third, is_told=False)
    assert await calls.metering() is SEEN


async def test_missing_after_twenty_calls_that_nobody_settled(calls: Calls) -> None:
    """Not after nineteen; it ends with the first settlement, and begins to count anew."""
    calls.lose(MISSING_AFTER - 1)
    assert await calls.metering() is UNPROVED
    calls.lose(1)
    assert await calls.metering() is MISSING
    calls.end(*calls.admit(now_ms=LATER_MS), now_ms=LATER_MS)
    assert await calls.metering() is SEEN
    calls.lose(MISSING_AFTER - 1, now_ms=LATER_MS + 1)
    assert await calls.metering() is SEEN
    calls.lose(1, now_ms=LATER_MS + 1)
    assert await calls.metering() is MISSING


async def test_what_was_lost_before_a_settlement_does_not_count_after_it(calls: Calls) -> None:
    """Calls of a proxy that crashed are presumed minutes later, when the next one has long settled others."""
    calls.admit(3 * MISSING_AFTER)
    calls.end(*calls.admit(now_ms=NOW_MS + 10), now_ms=NOW_MS + 20)
    assert calls.sweep(NOW_MS + PATIENCE_MS + 20) == 3 * MISSING_AFTER
    assert await calls.metering() is SEEN
    assert (await calls.usage()).unsettled == 0


async def test_a_late_settlement_is_one(calls: Calls) -> None:
    """However long the proxy took: what it tells is heard."""
    late, *_ = calls.admit(MISSING_AFTER)
    assert calls.sweep(NOW_MS + PATIENCE_MS) == MISSING_AFTER
    assert await calls.metering() is MISSING
    assert calls.end(late, now_ms=NOW_MS + PATIENCE_MS + 1) == (Outcome.REPLACED,)
    assert await calls.metering() is SEEN


async def test_another_publications_calls_prove_nothing(calls: Calls) -> None:
    """Though they have the same key; and of the key itself nothing is told."""
    calls.lose(MISSING_AFTER)
    calls.end(*calls.admit(subject=Subject("p:2", PUBLICATION.budgets)))
    assert await calls.metering() is MISSING
    key = await calls.usage("k:1")
    assert (key.settled_ms, key.unsettled) == (0, 0)


async def test_a_publication_that_is_gone_is_not_brought_back(calls: Calls, store: redis.Redis) -> None:
    """Neither by settlements nor by the sweep of its last calls: its name published anew begins anew."""
    told, _lost = calls.admit(2)
    store.delete(usage_key("0", "p:1"))
    calls.end(told)
    assert calls.sweep(LATER_MS) == 1
    assert not store.exists(usage_key("0", "p:1"))


async def test_a_reservation_of_an_earlier_version_is_ended_and_counted(calls: Calls, store: redis.Redis) -> None:
    """It does not tell when it was made: it counts until the next settlement."""
    for one in calls.admit(MISSING_AFTER + 1):
        record = store.hget(held_key("0"), one)
        store.hset(held_key("0"), one, record[:-8])
    assert calls.end("call-0") == (Outcome.SETTLED,)
    assert calls.sweep(NOW_MS + PATIENCE_MS) == MISSING_AFTER
    assert await calls.metering() is MISSING


def test_a_batch_of_settlements_notes_it_once(calls: Calls, store: redis.Redis) -> None:
    """Two commands for each key and publication of a batch, however many its calls, and one that reads all of these."""
    ids = calls.admit(50)
    store.config_resetstat()
    calls.end(*ids)
    stats = store.info("commandstats")
    assert (stats["cmdstat_hmget"]["calls"], stats["cmdstat_hset"]["calls"]) == (1 + 2, 2)
    assert {"cmdstat_hincrby", "cmdstat_exists", "cmdstat_expire"}.isdisjoint(stats)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_broken_usage_hash_stops_no_settlement(calls: Calls, store: redis.Redis, is_told: bool) -> None:  # noqa: FBT001  a row
    """What cannot be noted is reported; the tokens are given back all the same."""
    (one,) = calls.admit()
    store.delete(usage_key("0", "p:1"))
    store.set(usage_key("0", "p:1"), "no hash", px=60_000)
    ends, now_ms = ([Settlement(one, 0)], NOW_MS) if is_told else ([], LATER_MS)
    settled, faults = settle_and_write(store.execute_command, LEDGER, ends, now_ms=now_ms)
    assert (settled.faults, faults, store.exists(held_key("0"))) == (0, 1, 0 if is_told else 1)


def test_a_broken_count_costs_no_other_call_of_the_batch(calls: Calls, store: redis.Redis) -> None:
    """It is reported; the usage of the others that end with it is written down, whoever's turn comes first."""
    others = [Subject(f"p:{number}", PUBLICATION.budgets) for number in range(2, 10)]
    for subject in (PUBLICATION, *others):
        calls.admit(subject=subject)
    store.hset(usage_key("0", "p:1"), "unsettled", "no number")
    swept, faults = settle_and_write(store.execute_command, LEDGER, [], sweep=1_000, now_ms=LATER_MS)
    assert (swept.presumed, swept.faults, faults) == (1 + len(others), 0, 1)
    for subject in (PUBLICATION, *others):
        assert store.hget(usage_key("0", subject.name), "tokens") == b"20"


HOUR_MS = 3_600_000
TOP_MS = NOW_MS - NOW_MS % HOUR_MS + 5 * HOUR_MS
"""The beginning of a clock hour."""


async def above(calls: Calls, now_ms: int, subject: str = "p:1") -> tuple[int, int]:
    """Calls and tokens above their holds, as they are told at a time."""
    found = await calls.usage(subject, now_ms)
    return found.above.calls, found.above.tokens


async def test_what_was_not_held_is_counted_of_the_publication(calls: Calls) -> None:
    """Calls and tokens, once for each call that is settled; nothing of its key, nothing where all was held."""
    one, two, three = calls.admit(3)
    calls.end(one, above=70)
    calls.end(one, above=70)
    calls.end(two, three, above=5)
    calls.end(*calls.admit(), above=0)
    calls.end(*calls.admit(), is_told=False, above=9)
    assert await above(calls, NOW_MS) == (3, 80)
    assert await above(calls, NOW_MS, "k:1") == (0, 0)


async def test_a_late_settlement_counts_what_was_not_held(calls: Calls) -> None:
    """Though its call was presumed meanwhile."""
    names = calls.admit()
    calls.sweep(NOW_MS + PATIENCE_MS)
    assert calls.end(*names, now_ms=NOW_MS + PATIENCE_MS, above=40) == (Outcome.REPLACED,)
    assert await above(calls, NOW_MS + PATIENCE_MS) == (1, 40)


async def test_it_is_told_of_two_clock_hours_and_then_forgotten(calls: Calls) -> None:
    """The last millisecond of an hour is its own; the hour before is kept while the next one counts."""
    for at_ms, tokens in ((TOP_MS - 1, 1), (TOP_MS, 10), (TOP_MS + HOUR_MS - 1, 100)):
        calls.end(*calls.admit(now_ms=at_ms), now_ms=at_ms, above=tokens)
    assert await above(calls, TOP_MS + HOUR_MS - 1) == (3, 111)
    assert await above(calls, TOP_MS + HOUR_MS) == (2, 110)
    late_ms = TOP_MS + HOUR_MS
    calls.end(*calls.admit(now_ms=late_ms), now_ms=late_ms, above=1_000)
    assert await above(calls, late_ms) == (3, 1_110)
    assert await above(calls, late_ms + 2 * HOUR_MS) == (0, 0)
    calls.end(*calls.admit(now_ms=late_ms + 3 * HOUR_MS), now_ms=late_ms + 3 * HOUR_MS, above=7)
    assert await above(calls, late_ms + 3 * HOUR_MS) == (1, 7)


async def test_counters_that_somebody_wrote_over_begin_anew(calls: Calls, store: redis.Redis) -> None:
    """They are for warnings only."""
    calls.end(*calls.admit(), above=3)
    store.hset(usage_key("0", "p:1"), "above", "what is this")
    assert await above(calls, NOW_MS) == (0, 0)
    calls.end(*calls.admit(), above=4)
    assert await above(calls, NOW_MS) == (1, 4)


async def test_the_largest_of_all_are_counted(calls: Calls) -> None:
    """A thousand calls of 10^9: no number of the script's loses a token."""
    for _ in range(4):
        calls.end(*calls.admit(250), above=10**9)
    assert await above(calls, NOW_MS) == (1_000, 10**12)


async def test_twenty_whole_answers_without_usage_are_estimated(calls: Calls) -> None:
    """In a row, in one batch or in many, whatever ends otherwise between; an answer that tells usage ends it."""
    calls.end(*calls.admit(ESTIMATED_AFTER - 1), usage=False)
    assert await calls.metering() is SEEN
    calls.end(*calls.admit(), usage=True)
    calls.end(*calls.admit(ESTIMATED_AFTER - 1), usage=False)
    calls.end(*calls.admit(3))
    assert await calls.metering() is SEEN
    calls.end(*calls.admit(), usage=False)
    assert await calls.metering() is ESTIMATED
    calls.end(*calls.admit(), is_told=False)
    assert (await calls.usage()).estimated == ESTIMATED_AFTER
    calls.end(*calls.admit(), usage=True)
    assert await calls.metering() is SEEN


async def test_an_estimated_call_may_be_above_what_it_held(calls: Calls) -> None:
    """Both are counted: one number tells the script of both."""
    calls.end(*calls.admit(3), usage=False, above=7)
    calls.end(*calls.admit(), usage=False)
    found = await calls.usage(now_ms=NOW_MS)
    assert (found.estimated, found.above.calls, found.above.tokens) == (4, 3, 21)


async def test_missing_ends_go_before_estimates(calls: Calls) -> None:
    """What nobody tells is worse than what nobody counts."""
    calls.end(*calls.admit(ESTIMATED_AFTER), usage=False)
    calls.lose(MISSING_AFTER, now_ms=NOW_MS + 1)
    assert await calls.metering() is MISSING
