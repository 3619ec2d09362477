"""Endings that gates hear by Envoy's access log: each is settled once, whoever hears it and by whichever way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from gatebench import Asker, Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry
from tokenbench import HELD, Logger, Teller, ending, logged, openai_publication, reservation_of, token_call

from catalog.keys.secrets import Secrets
from catalog.records import PublicationRecord
from gate.assembly import Gate
from gate.endings import LEAST_PRESUMED, PERIOD_MS, Shortfall


@dataclass
class Ready:
    """A gate with an endings address, and what it counts."""

    gate: Gate
    registry: CollectorRegistry
    asker: Asker
    logger: Logger
    teller: Teller

    def counted(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return self.registry.get_sample_value(f"tollkeeper_{name}", labels) or 0


@contextmanager
def gates(folder: Path, redis_url: str, secrets: Secrets, count: int) -> Iterator[list[Ready]]:
    """So many gates on one store."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            registry = CollectorRegistry()
            target, endings = f"unix:{folder}/g{number}.sock", f"unix:{folder}/e{number}.sock"
            gate = make_gate(target, redis_url, secrets, registry, endings=endings)
            gate.start()
            stack.callback(gate.stop)
            clients = Asker(gate.address), Logger(gate.endings_address), Teller(gate.address)
            for one in clients:
                stack.callback(one.close)
            made.append(Ready(gate, registry, *clients))
        for ready in made:
            wait_until(lambda gate=ready.gate: gate.readiness().ready)
        yield made


@pytest.fixture
def llm(catalog: Catalog) -> PublicationRecord:
    """An openai model with room for twenty calls."""
    catalog.tenant()
    return openai_publication(catalog)


@pytest.fixture
def key(catalog: Catalog, llm: PublicationRecord) -> str:
    """A key for it."""
    return catalog.key(llm)[1]


def admit(ready: Ready, llm: PublicationRecord, key: str, calls: int) -> list[str]:
    """Have so many calls admitted; their reservations."""
    answers = ready.asker.ask_many([token_call(key, llm, max_tokens=10)] * calls)
    return [reservation_of(answer) or "" for answer in answers]


def tokens(store: redis.Redis, llm: PublicationRecord) -> int:
    """What the publication's calls were charged, and what those in flight hold."""
    return int(store.hget(f"tk:usage:{{0}}:p:{llm.uid}", "tokens") or 0)


def test_any_gate_settles_any_call(
    tmp_path: Path, redis_url: str, secrets: Secrets, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """One admits and another hears the end: all it needs is in the store, and it counts what it heard."""
    with gates(tmp_path, redis_url, secrets, 2) as (one, other):
        ids = admit(one, llm, key, 5)
        assert one.counted("reservations_made_total") == 5
        other.logger.log(*(logged(name, llm, total=30, prompt=20, completion=10) for name in ids))
        wait_until(lambda: store.hlen(HELD) == 0)
        wait_until(lambda: tokens(store, llm) == 5 * 30)
        assert other.counted("endings_heard_total", way="log") == 5
        assert other.counted("settlements_total", ending="usage", outcome="settled") == 5
        assert one.counted("settlements_total", ending="usage", outcome="settled") == 0


def test_an_ending_told_both_ways_settles_once(
    tmp_path: Path, redis_url: str, secrets: Secrets, store: redis.Redis, llm: PublicationRecord, key: str
) -> None:
    """By the log and by an Envoy of the release before, to one gate or two, in either order, and doubled."""
    with gates(tmp_path, redis_url, secrets, 2) as (one, other):
        first, second, third = admit(one, llm, key, 3)
        one.logger.log(logged(first, llm, total=30))
        one.teller.tell(ending(first, llm, total="30"))
        other.teller.tell(ending(second, llm, total="30"))
        one.logger.log(logged(second, llm, total=30))
        one.logger.log(logged(third, llm, total=30), logged(third, llm, total=30))
        other.logger.log(logged(third, llm, total=30))
        heard = ("endings_heard_total", {"way": "log"}), ("endings_heard_total", {"way": "stream_done"})
        wait_until(lambda: sum(g.counted(name, **by) for g in (one, other) for name, by in heard) == 7)
        wait_until(lambda: one.gate._settler.waiting + other.gate._settler.waiting == 0)
        settled = ("settlements_total", {"ending": "usage", "outcome": "settled"})
        wait_until(lambda: sum(gate.counted(settled[0], **settled[1]) for gate in (one, other)) == 3)
        assert store.hlen(HELD) == 0
        wait_until(lambda: tokens(store, llm) >= 3 * 30)
        assert tokens(store, llm) == 3 * 30


def test_a_gate_that_stops_settles_what_it_heard(
    tmp_path: Path,
    redis_url: str,
    secrets: Secrets,
    store: redis.Redis,
    llm: PublicationRecord,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is on its way when it is told to stop, too: the receiver closes before the settler ends."""
    with gates(tmp_path, redis_url, secrets, 1) as (only,):
        first, *others = admit(only, llm, key, 10)
        waiting, stream = only.logger.open()
        waiting.put([logged(first, llm, total=30)])
        wait_until(lambda: only.counted("endings_heard_total", way="log") == 1)
        stop = only.gate._follower.stop

        def stopping(timeout_s: float) -> None:  # it is on its way down: no call is answered any more
            stop(timeout_s)
            for name in others:
                waiting.put([logged(name, llm, total=30)])

        monkeypatch.setattr(only.gate._follower, "stop", stopping)
        only.gate.stop()
        waiting.put(None)
        stream.result(10)
        assert (store.hlen(HELD), tokens(store, llm)) == (0, 10 * 30)


def test_unreadable_entries_are_counted(
    tmp_path: Path, redis_url: str, secrets: Secrets, llm: PublicationRecord, key: str
) -> None:
    """One without an id, one with an id that is none of ours; the good one beside them is settled."""
    with gates(tmp_path, redis_url, secrets, 1) as (only,):
        (good,) = admit(only, llm, key, 1)
        only.logger.log(logged("", llm), logged("zz-none-of-ours", llm), logged(good, llm, total=30))
        wait_until(lambda: only.counted("settlements_total", ending="usage", outcome="settled") == 1)
        assert only.counted("endings_unreadable_total") == 1
        assert only.counted("settlements_lost_total", why="unreadable") == 1


class _Clock:
    """Moved on by a test."""

    ms = 0.0

    def now_ms(self) -> float:
        """Milliseconds."""
        return self.ms


@pytest.mark.parametrize(
    ("heard", "presumed", "is_missing"),
    [
        (0, 0, False),
        (0, LEAST_PRESUMED - 1, False),  # chance
        (0, LEAST_PRESUMED, True),
        (19_980, LEAST_PRESUMED, False),  # one in a thousand
        (19_979, LEAST_PRESUMED, True),
    ],
)
def test_missing_endings_are_found(heard: int, presumed: int, is_missing: bool) -> None:  # noqa: FBT001  a row
    """Twenty, and more than one in a thousand; forgotten after two periods."""
    clock = _Clock()
    shortfall = Shortfall(clock.now_ms)
    for _ in range(heard):
        shortfall.heard(1)
    shortfall.presumed(presumed)
    assert shortfall.found() == ((presumed, heard) if is_missing else None)
    clock.ms += PERIOD_MS
    assert (shortfall.found() is not None) == is_missing
    clock.ms += PERIOD_MS
    assert shortfall.found() is None


def test_a_long_silence_leaves_no_period_behind() -> None:
    """What was counted before it is not taken for new."""
    clock = _Clock()
    shortfall = Shortfall(clock.now_ms)
    shortfall.presumed(1_000)
    clock.ms += 10 * PERIOD_MS
    assert shortfall.found() is None


def test_a_gate_warns_of_missing_endings(
    tmp_path: Path, redis_url: str, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At /readyz, which stays ready."""
    with gates(tmp_path, redis_url, secrets, 1) as (only,):
        only.gate._shortfall.presumed(LEAST_PRESUMED)
        told = only.gate.readiness()
        assert told.ready
        (warning,) = (one for one in told.warnings if one.code == "endings_missing")
        assert warning.problem.endswith("20 calls ended, while 0 endings were heard here")
        with monkeypatch.context() as patched:
            patched.setattr(only.gate._endings, "_receiver", None)
            (warning,) = (one for one in only.gate.readiness().warnings if one.code == "endings_missing")
        assert warning.problem.endswith("heard here, without --endings-listen")
