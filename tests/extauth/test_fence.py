"""The epoch fence: no call that starts after a change was answered is admitted on the record as it was before."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from gatebench import HOST, Asker, Catalog, Wire, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from catalog.records import Kind, Limits, ModelType, Protocol
from catalog.store import reader
from catalog.store.reader import Snapshot
from extauth.batch import Checker, Limiter
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.records.cache import RecordCache
from extauth.request.call import Call
from extauth.stores import Execute, Stores
from extauth.taker import Taker
from gate.assembly import Gate, limiter_of
from gate.links import RECORDS_CELL, StoreRecords
from runtime.store.offset import ClockOffset


class StandingClock:
    """Time does not pass unless it is told to."""

    def monotonic_ms(self) -> float:
        """Always the same."""
        return 1_000.0

    def wall_ms(self) -> int:
        """Always the same."""
        return 1_000


class HeldRecords:
    """The true reader, held on an event between reading a key and giving it out."""

    def __init__(self) -> None:
        self._records = StoreRecords()
        self.has_read = threading.Event()
        self.release = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def read(self, execute: Any, refs: Sequence[str]) -> Snapshot:
        """Read, then wait to be released."""
        snapshot = self._records.read(execute, refs)
        if any(one.startswith("key:") for one in refs):
            self.has_read.set()
            assert self.release.wait(10)
        return snapshot


@pytest.fixture
def records() -> HeldRecords:
    """A reader that can be held."""
    return HeldRecords()


def standing_taker() -> Taker:
    """The true limiter on a clock that stands still."""
    offset = ClockOffset()
    return Taker(limiter_of, clock=StandingClock(), offset_of=lambda _cell: offset)


@pytest.fixture
def checker(catalog: Catalog, records: HeldRecords) -> Checker:
    """A checker without a gate around it, on a clock that stands still."""
    taker = standing_taker()
    return Checker(cache=RecordCache(), records=records, limiter=taker, secrets=catalog.secrets)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A thread to be held."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def call_of(text: str, publication: str) -> Call:
    """A call as the edge reads it."""
    return Call(text, None, publication, "", "POST", "application/json")


def test_a_key_revoked_between_its_reading_and_its_use_is_refused(
    catalog: Catalog,
    checker: Checker,
    records: HeldRecords,
    pool: ThreadPoolExecutor,
    store: redis.Redis,
    execute: Execute,
) -> None:
    """Hold the step between reading the record and caching it, revoke, release: 401, nothing counted."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=5))
    record, text = catalog.key(publication)
    held = pool.submit(checker.check, [call_of(text, publication.uid)], Stores.one(execute), 2_000.0)
    assert records.has_read.wait(10)
    catalog.remove(Kind.KEY, record)
    records.release.set()
    assert [verdict.reason for verdict in held.result(10)] == [Reason.KEY_UNKNOWN]
    assert not list(store.scan_iter("tk:budget:*"))


class MovingLimiter:
    """The true limiter; ``change`` runs right before each script."""

    def __init__(self, inner: Taker, change: Any) -> None:
        self._inner = inner
        self._change = change
        self.tries = 0

    def take(self, *arguments: Any, **named: Any) -> Any:
        """Change, then take."""
        self.tries += 1
        self._change()
        return self._inner.take(*arguments, **named)


@pytest.mark.parametrize(("own", "reason", "tries"), [(False, Reason.OK, 1), (True, Reason.RECORDS_CHANGING, 3)])
def test_only_changes_of_its_own_records_refuse_a_call(
    catalog: Catalog, store: redis.Redis, execute: Execute, *, own: bool, reason: Reason, tries: int
) -> None:
    """While others' records change all the time calls go on; one whose own key changes each time gets a 503."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=5))
    record, text = catalog.key(publication)
    foreign, _ = catalog.key(publication)
    changing = [record if own else foreign]

    def change() -> None:
        changing[0] = catalog.change(changing[0], name=f"name-{changing[0].version}")

    moving = MovingLimiter(standing_taker(), change)
    checker = Checker(cache=RecordCache(), records=StoreRecords(), limiter=moving, secrets=catalog.secrets)
    verdicts = checker.check([call_of(text, publication.uid)], Stores.one(execute), 2_000.0)
    assert [verdict.reason for verdict in verdicts] == [reason]
    assert moving.tries == tries
    assert bool(list(store.scan_iter("tk:budget:*"))) is not own


def test_a_list_tells_models_as_they_are_once_it_is_admitted(catalog: Catalog, execute: Execute) -> None:
    """What is read after its price was taken is never the cache's of before: no model hidden by then is in it."""
    catalog.tenant()
    llm = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
    mine, hidden = catalog.publication(model="mine", **llm), catalog.publication(model="hidden", **llm)
    catalog.host(mine, hidden, closed=True)
    _, text = catalog.key(mine, hidden)
    cache = RecordCache()

    def asked(limiter: Limiter) -> list[str]:
        checker = Checker(cache=cache, records=StoreRecords(), limiter=limiter, secrets=catalog.secrets)
        call = Call(text, None, "", HOST, "GET", path="/v1/models")
        (verdict,) = checker.check([call], Stores.one(execute), 2_000.0)
        assert verdict.reason is Reason.MODELS_TOLD
        assert isinstance(verdict.asked, Telling)
        return [one.record.model for one in verdict.asked.models]

    assert asked(standing_taker()) == ["mine", "hidden"]
    moving = MovingLimiter(standing_taker(), lambda: catalog.change(hidden, allowed_tenants=("tenant-b",)))
    assert asked(moving) == ["mine"]
    assert moving.tries == 1


def test_without_the_feed_thread_a_change_binds_the_next_call(
    catalog: Catalog, execute: Execute, gate: Gate, asker: Asker
) -> None:
    """The feed only keeps caches warm: with its thread stopped, revoke and limit changes bind all the same."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=5))
    record, text = catalog.key(publication)
    _, other = catalog.key(publication)
    assert statuses(asker, publication, text, other) == [200, 200]
    gate._follower.stop(5)
    catalog.remove(Kind.KEY, record)
    assert statuses(asker, publication, text, other) == [401, 200]
    catalog.change(publication, limits=Limits(per_minute=3))
    assert statuses(asker, publication, text, other) == [401, 429]
    assert reader.read(execute, (), cell=RECORDS_CELL).epoch == gate.cache.epoch


def statuses(asker: Asker, publication: Any, *texts: str) -> list[int]:
    """Ask with each key; 200 stands for admitted."""
    answers = [asker.ask(question(key=text, publication=publication)) for text in texts]
    return [status(answer) for answer in answers]


def test_a_store_that_lost_everything_refuses_every_key(
    catalog: Catalog, store: redis.Redis, gate: Gate, asker: Asker
) -> None:
    """An epoch that is gone counts as changed: nothing cached is used again."""
    catalog.tenant()
    publication = catalog.publication()
    _, text = catalog.key(publication)
    assert statuses(asker, publication, text) == [200]
    store.flushdb()
    assert statuses(asker, publication, text) == [404]
    assert gate.readiness().ready


def test_the_feed_thread_drops_what_changed(catalog: Catalog, gate: Gate, asker: Asker) -> None:
    """Without any call the cache follows a change by itself."""
    catalog.tenant()
    publication = catalog.publication()
    record, text = catalog.key(publication)
    assert statuses(asker, publication, text) == [200]
    before = len(gate.cache)
    catalog.change(record, name="renamed")
    wait_until(lambda: len(gate.cache) == before - 1)


def test_revokes_under_load_are_final(
    catalog: Catalog, asker: Asker, registry: CollectorRegistry, pool: ThreadPoolExecutor
) -> None:
    """While batches run without pause, no call sent after a revoke's answer is admitted: 20 keys, one after another."""
    catalog.tenant()
    publication = catalog.publication()
    keys = [catalog.key(publication) for _ in range(20)]
    stop = threading.Event()

    def load() -> int:
        rounds = 0
        while not stop.is_set():
            asker.ask_many([question(key=text, publication=publication) for _, text in keys])
            rounds += 1
        return rounds

    running = pool.submit(load)
    for record, text in keys:
        catalog.remove(Kind.KEY, record)
        assert statuses(asker, publication, text) == [401]
    stop.set()
    assert running.result(30) > 0
    assert registry.get_sample_value("tollkeeper_unknown_outcomes_total") == 0


def test_without_the_feed_thread_what_was_put_right_is_admitted_at_once(
    catalog: Catalog, gate: Gate, asker: Asker
) -> None:
    """A refusal does not rest on an old record either: a key that was enabled again works from the answer on."""
    catalog.tenant()
    publication = catalog.publication()
    record, text = catalog.key(publication, disabled=True)
    gate._follower.stop(5)
    for _ in range(3):
        assert statuses(asker, publication, text) == [401]
        record = catalog.change(record, disabled=False)
        assert statuses(asker, publication, text) == [200]
        record = catalog.change(record, disabled=True)


def test_a_change_binds_the_next_call_on_every_gate(
    catalog: Catalog, redis_url: str, secrets: Secrets, tmp_path: Path, wire: Wire
) -> None:
    """Two gates with warm caches: a lowered limit and a revoke hold on both from the answer on."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=100))
    record, text = catalog.key(publication)
    with ExitStack() as stack:
        askers = [
            stack.enter_context(asking_gate(wire, wire.target(tmp_path, str(number)), redis_url, secrets))
            for number in (1, 2)
        ]
        assert [statuses(asker, publication, text) for asker in askers] == [[200], [200]]
        publication = catalog.change(publication, limits=Limits(per_minute=2))
        assert [statuses(asker, publication, text) for asker in askers] == [[429], [429]]
        catalog.change(publication, limits=Limits(per_minute=3))
        assert [statuses(asker, publication, text) for asker in askers] == [[200], [429]]
        catalog.remove(Kind.KEY, record)
        assert [statuses(asker, publication, text) for asker in askers] == [[401], [401]]


@contextmanager
def asking_gate(wire: Wire, target: str, url: str, secrets: Secrets) -> Iterator[Asker]:
    """One of several gates on the same store, with its client."""
    gate = make_gate(target, url, secrets, CollectorRegistry(), wire=wire)
    gate.start()
    wait_until(lambda: gate.readiness().ready)
    asker = Asker(gate.address)
    try:
        yield asker
    finally:
        asker.close()
        gate.stop()
