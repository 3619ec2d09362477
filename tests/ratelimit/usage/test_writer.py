"""Usage is written every second, at the end, and once, whatever the store does meanwhile; what is lost is counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from gatebench import wait_until
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as StoreConnectionError

from ratelimit.names import usage_key
from ratelimit.usage import writer as module
from ratelimit.usage.book import UsageBook
from ratelimit.usage.counted import Counted
from ratelimit.usage.metrics import UsageMetrics
from ratelimit.usage.writer import UsageWriter
from runtime.clock import SystemClock
from runtime.store.link import StoreLink

NOW_MS = 1_800_000_000_000


class Bench:
    """A book and its writer, on a registry of their own, by a clock that stands."""

    def __init__(self, make: Callable[[], Any], on_fault: Callable[[], object] = lambda: None) -> None:
        self.registry, self.now_ms = CollectorRegistry(), 0.0
        self.metrics = UsageMetrics(self.registry)
        self.book = UsageBook(self.metrics.lost.inc)
        self.writer = UsageWriter(
            self.book, make=make, cell_of=_cell_of, metrics=self.metrics, on_fault=on_fault, now_ms=lambda: self.now_ms
        )

    def value(self, name: str) -> float:
        """What a metric says."""
        return self.registry.get_sample_value(f"tollkeeper_usage_{name}") or 0


def _cell_of(subject: str) -> int:
    if subject.startswith("x:"):
        raise ValueError("nobody's")
    return 0


def _total(store: redis.Redis, subject: str) -> int:
    return int(store.hget(usage_key("0", subject), "total") or 0)


@pytest.fixture
def bench() -> Bench:
    """A writer whose thread does not run: it is told when to write."""
    return Bench(lambda: None)


@pytest.fixture
def running(redis_url: str) -> Iterator[Bench]:
    """A writer whose thread runs."""
    clock = SystemClock()
    made = Bench(lambda: StoreLink(redis_url, clock))
    made.writer = UsageWriter(
        made.book,
        make=lambda: StoreLink(redis_url, clock),
        cell_of=_cell_of,
        metrics=UsageMetrics(CollectorRegistry()),
        on_fault=lambda: None,
        now_ms=clock.monotonic_ms,
    )
    made.writer.start()
    yield made
    made.writer.stop(5)


@pytest.mark.parametrize("cluster", ["server"], indirect=True)
def test_it_is_written_within_a_second_or_so(store: redis.Redis, running: Bench) -> None:
    """Nobody asks for it."""
    began_s = time.monotonic()
    running.book.admitted(("k:1", "p:1"), 3, NOW_MS)
    wait_until(lambda: _total(store, "p:1") == 3)
    assert time.monotonic() - began_s < 2.5 * module.FLUSH_S


@pytest.mark.parametrize("cluster", ["server"], indirect=True)
def test_what_was_counted_is_written_at_the_end(store: redis.Redis, running: Bench) -> None:
    """A gate that stops loses nothing."""
    running.book.admitted(("k:1", "p:1"), 3, NOW_MS)
    running.writer.stop(5)
    assert (_total(store, "k:1"), _total(store, "p:1")) == (3, 3)


class Faulty:
    """A store that fails before or after it has done what it was asked."""

    def __init__(self, store: redis.Redis, faults: str) -> None:
        self._store, self._faults = store, iter(faults)

    def __call__(self, *command: Any) -> Any:
        """Run a command, or say that the link broke."""
        fault = next(self._faults, "")
        if fault == "b":
            raise StoreConnectionError("before")
        reply = self._store.execute_command(*command)
        if fault == "a":
            raise StoreConnectionError("after")
        return reply


@pytest.mark.parametrize("faults", ["b", "a", "ba", "aab", "ab", "na", "nb"])
def test_whatever_breaks_it_is_written_once(store: redis.Redis, bench: Bench, faults: str) -> None:
    """Before the script ran or after, again and again, while calls go on."""
    store.script_flush()
    execute, calls = Faulty(store, faults.replace("n", "")), 0
    for _ in range(5):
        bench.book.admitted(("k:1",), 2, NOW_MS)
        bench.book.admitted(("k:2",), 1, NOW_MS)
        calls += 1
        with contextlib.suppress(StoreConnectionError):
            bench.writer.flush(execute)
    assert (_total(store, "k:1"), _total(store, "k:2")) == (2 * calls, calls)
    assert (bench.writer.waiting, bench.value("lost_total")) == (0, 0)


def _away(*_command: Any) -> Any:
    raise StoreConnectionError("away")


def test_a_store_that_stays_away_is_waited_for_so_long(store: redis.Redis, bench: Bench) -> None:
    """Half an hour: as long as it remembers what was written, and no longer. What is given up is counted."""
    for minutes in range(31):
        bench.now_ms = minutes * 60_000.0
        bench.book.admitted(("k:1",), 2, NOW_MS)
        with pytest.raises(StoreConnectionError):
            bench.writer.flush(_away)
    assert (bench.value("lost_total"), bench.value("waiting")) == (0, 2)
    bench.now_ms += 60_000
    bench.writer.flush(store.execute_command)
    assert (bench.value("lost_total"), _total(store, "k:1")) == (62, 0)


def test_what_waits_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many subjects as may wait, and as many again in the book; what comes to others is counted as lost."""
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    bench.book._most = 10
    for number in range(100):
        bench.book.admitted((f"k:{number}",), 1, NOW_MS)
        with contextlib.suppress(StoreConnectionError):
            bench.writer.flush(_away)
    assert (bench.writer.waiting, len(bench.book), bench.value("lost_total")) == (10, 10, 80)


def test_tokens_wait_for_the_first_calls_of_another_gate(store: redis.Redis, bench: Bench) -> None:
    """The gate that admitted has not written yet: for ten flushes; then the subject is gone, and does not come back."""
    bench.book.charged(("k:1", "k:2"), 70, NOW_MS)
    for _ in range(module.MISSED_MOST - 1):
        bench.writer.flush(store.execute_command)
    other = Bench(lambda: None)
    other.book.admitted(("k:1",), 1, NOW_MS)
    other.writer.flush(store.execute_command)
    bench.writer.flush(store.execute_command)
    assert store.hget(usage_key("0", "k:1"), "tokens") == b"70"
    assert (bench.writer.waiting, store.exists(usage_key("0", "k:2"))) == (0, 0)


def test_a_name_that_no_cell_has_is_lost(store: redis.Redis, bench: Bench) -> None:
    """It is nobody's, and stops nobody else's."""
    bench.book.admitted(("x:1", "k:1"), 3, NOW_MS)
    bench.writer.flush(store.execute_command)
    assert (bench.value("lost_total"), _total(store, "k:1")) == (3, 3)


@pytest.mark.parametrize("cluster", ["server"], indirect=True)
def test_many_subjects_go_in_several_scripts(store: redis.Redis, bench: Bench) -> None:
    """None of which is large; the store is others' in between."""
    for number in range(2_000):
        bench.book.admitted((f"k:{number}",), 1, NOW_MS)
    store.config_resetstat()
    bench.writer.flush(store.execute_command)
    scripts = sum(store.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))
    assert scripts >= 2_000 / module.LARGEST_FLUSH
    assert _total(store, "k:1999") == 1


def test_a_fault_of_its_own_is_told() -> None:
    """Nobody goes on without usage being written."""
    told: list[bool] = []

    def broken() -> StoreLink:
        raise RuntimeError("a mistake")

    bench = Bench(broken, on_fault=lambda: told.append(True))
    bench.writer.start()
    bench.writer.stop(5)
    assert told == [True]


def test_counts_add_up() -> None:
    """Whether they are told at once or one after the other."""

    def tell(counted: Counted, part: int) -> None:
        if part == 0:
            counted.admitted(2, NOW_MS)
            counted.told(NOW_MS, 7, usage=False)
            counted.presumed(5.0)
        else:
            counted.charged(-3, NOW_MS + 60_000)
            counted.told(NOW_MS + 3_600_000, 1, usage=True)
            counted.told(NOW_MS, 0, usage=False)
            counted.presumed(3.0)

    both, one, other = Counted(), Counted(), Counted()
    for part, into in ((0, one), (1, other)):
        tell(both, part)
        tell(into, part)
    one.add(other)
    assert one.pack() == both.pack()
