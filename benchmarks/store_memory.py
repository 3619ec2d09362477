"""What a key costs the store's memory: one that is called all the time, with 13 months of usage, and an idle one.

    python -m benchmarks.store_memory [--json FILE]

Everything is written by the product's own code into a Valkey of its own: records and indexes by commits, budgets by the
script that takes, usage by the one that counts. A value takes what ``MEMORY USAGE ... SAMPLES 0`` says, its name and
its place in the store included; an index the share of one of a thousand.

Busy: a call a second for 13 months, somewhat uneven, so that each of the last 60 minutes, 192 hours and 397 days has
calls. The row is its usage, all keys together, of calls of 1,000 tokens; the notes say what it is without tokens, and
with its record, its share of the indexes and the windows of three full budgets beside it.

Idle: a thousand keys that were called in one minute, long ago: record, share of the indexes, and usage.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import redis
import redis.asyncio

from benchmarks.ground.processes import valkey
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from catalog.actors import Recordless
from catalog.changes import Audit, Change, Put
from catalog.ids import new_id, shard_of
from catalog.records import Credential, KeyRecord, Limits
from catalog.store.store import CatalogStore
from gate.formats import NEWEST
from ratelimit.names import budget_key, usage_key
from ratelimit.usage.counted import Counted
from ratelimit.usage.counting import count
from ratelimit.windows.budgets import Budget, Charge, Draw, Subject, Window
from ratelimit.windows.limiter import Limiter

TENANT: Final = "tenant-a"
KEYS: Final = 1_000
NOW_MS: Final = 1_800_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
TOKENS_A_CALL: Final = 1_000
LIMITS: Final = Limits(10, 100, 5_000)
_UNEVEN: Final = 0.1
"""By so much of the mean what a minute, an hour or a day counts differs from it (a standard deviation)."""

Execute = Callable[..., Any]


def stretches(now_ms: int) -> Iterator[tuple[int, int]]:
    """When something is counted, and the seconds whose calls are counted there: 13 months, the oldest first."""
    for day in range(397, 10, -1):
        yield now_ms - day * DAY_MS, DAY_MS // 1_000
    for hour in range(10 * 24, 26, -1):
        yield now_ms - hour * HOUR_MS, HOUR_MS // 1_000
    for minute in range(26 * 60, -1, -1):
        yield now_ms - minute * MINUTE_MS, MINUTE_MS // 1_000


def use_for_13_months(execute: Execute, subject: str, tokens_a_call: int, cell: str = "0") -> None:
    """A call a second until ``NOW_MS``."""
    chance = random.Random(1)  # noqa: S311  a load
    for number, (at_ms, seconds) in enumerate(stretches(NOW_MS), 1):
        calls = max(1, round(chance.gauss(seconds, _UNEVEN * seconds)))
        counted = Counted()
        counted.admitted(calls, at_ms)
        counted.charged(round(calls * chance.gauss(tokens_a_call, _UNEVEN * tokens_a_call)), at_ms)
        flushed = count(execute, cell, f"bench-{subject}", number, [(subject, counted)])
        if flushed.faults:
            raise SystemExit("usage could not be written")


def bytes_of(store: redis.Redis, names: Iterable[bytes | str]) -> int:
    """What these take."""
    return sum(store.memory_usage(name, samples=0) or 0 for name in names)


def usage_bytes(store: redis.Redis, subject: str) -> int:
    """What a subject's usage takes, all keys of it."""
    name = usage_key("0", subject)
    return bytes_of(store, [name, *store.scan_iter(f"{name}:*")])


def budget_bytes(store: redis.Redis, subject: str) -> int:
    """What a key's windows take when all their buckets have calls: three budgets, a call a second and a burst."""
    windows = (Window.SECOND, Window.MINUTE, Window.HOUR)
    unset = "tk:unfenced:{0}"
    limiter = Limiter(cell="0", epoch_key=unset, feed_key=f"{unset}:feed", writes_format=lambda: NEWEST)
    charge = Charge((Subject(subject, tuple(Budget(window, 10**6) for window in windows)),))
    moments = [NOW_MS - one * MINUTE_MS for one in range(60, 0, -1)]
    moments += [NOW_MS - one * 1_000 for one in range(59, 0, -1)] + [NOW_MS + one * 50 for one in range(21)]
    for at_ms in moments:
        limiter.take(store.execute_command, [Draw(charge)], epoch="", now_ms=at_ms)
    return bytes_of(store, [budget_key("0", subject)])


def key_record(limits: Limits | None = None) -> KeyRecord:
    """A key of one publication, as the admin makes it."""
    shard = shard_of(TENANT)
    uid, publication = new_id(shard, os.urandom), new_id(shard, os.urandom)
    credential = Credential("q" * 43 + "=", (1,), mac_key=1)
    made = KeyRecord(uid, TENANT, "my key", (publication,), credential, NOW_MS, NOW_MS)
    return made if limits is None else KeyRecord(uid, TENANT, "my key", (publication,), credential, 1, 1, limits=limits)


async def write_records(url: str, records: Iterable[KeyRecord]) -> None:
    """Write them as the admin does, some at a time."""
    async with redis.asyncio.Redis.from_url(url) as client:
        store, changes = CatalogStore(client), [Put(record, 0) for record in records]
        for start in range(0, len(changes), 100):
            some: list[Change] = [*changes[start : start + 100]]
            await store.commit(some, audit=Audit(Recordless.START, "bench", "", TENANT, ""))


def record_bytes(store: redis.Redis, ids: Iterable[str]) -> tuple[int, float]:
    """What their records take on the average, and their share of the indexes."""
    names = [f"tk:rec:key:{one}" for one in ids]
    indexes = bytes_of(store, [*store.scan_iter("tk:index:key*")])
    return round(bytes_of(store, names) / len(names)), indexes / len(names)


def idle_usage(execute: Execute, subjects: Iterable[str]) -> None:
    """Each was called in one minute."""
    counted = Counted()
    counted.admitted(3, NOW_MS - 100 * DAY_MS)
    for number, subject in enumerate(subjects, 1):
        count(execute, "0", "bench-idle", number, [(subject, counted)])


def busy(store: redis.Redis, record: int, index: float) -> Row:
    """The row of the key that is called all the time."""
    taken = {}
    for tokens in (0, TOKENS_A_CALL):
        use_for_13_months(store.execute_command, f"k:busy-key-{tokens:08}", tokens)
        taken[tokens] = usage_bytes(store, f"k:busy-key-{tokens:08}")
    windows = budget_bytes(store, "k:0a1busykeybusykey")
    whole = [round(used + record + index + windows) for used in taken.values()]
    beside = f"three full windows in format 2 {windows} B, record {record} B, indexes {index:.0f} B"
    note = f"{beside}; all together {whole[0]} B, with tokens {whole[1]} B"
    usage = {"calls alone B": [taken[0]], f"{TOKENS_A_CALL} tokens a call B": [taken[TOKENS_A_CALL]]}
    return Row("memory_busy", Spread.of([taken[TOKENS_A_CALL]]), {"usage": usage}, notes=[note])


def idle(record: int, index: float, usage: int) -> Row:
    """The row of the key that nobody calls."""
    parts = {"record B": [record], "indexes B": [index], "usage B": [usage]}
    note = f"one that was never called: {record + index:.0f} B"
    return Row("memory_idle", Spread.of([record + index + usage]), {"parts": parts}, notes=[note])


def idle_keys(store: redis.Redis, url: str) -> tuple[int, float, int]:
    """Make a thousand idle keys; what the record, the share of the indexes and the usage of one take."""
    records = [key_record() for _ in range(KEYS)]
    asyncio.run(write_records(url, records))
    subjects = [f"k:{record.id}" for record in records]
    idle_usage(store.execute_command, subjects)
    usage = round(sum(usage_bytes(store, one) for one in subjects[:100]) / 100)
    return *record_bytes(store, [record.id for record in records]), usage


def main() -> None:
    """Run."""
    options = parser_of(__doc__).parse_args()
    with valkey() as made, made.client() as store:
        record, index, usage = idle_keys(store, made.url)
        limited = key_record(LIMITS)
        asyncio.run(write_records(made.url, [limited]))
        with_limits = bytes_of(store, [f"tk:rec:key:{limited.id}"])
        save([tell(busy(store, with_limits, index)), tell(idle(record, index, usage))], options.json)


if __name__ == "__main__":
    main()
