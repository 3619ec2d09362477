"""Changes of other people's records: they cost a call nothing, and refuse nobody."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gatebench import NATIVE_UNIX, Asker, Catalog, Wire, question, status
from msgspec import structs

from catalog.actors import Recordless
from catalog.changes import REFS_MAX, UNREAD, Audit, Delete, Put
from catalog.records import (
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelRecord,
    ModelType,
    PlaceRecord,
    Protocol,
    Record,
    Role,
    RouteRecord,
    UserRecord,
)
from catalog.store import names
from catalog.store.store import CatalogStore
from extauth.records.entries import entry_of
from gate.assembly import Gate
from runtime.store.clients import client_of

CALLS_PER_S = 1_000
CHANGES_PER_S = 50
LASTS_S = 3.0
BURST = 10  # calls that come together
AUDIT = Audit(Recordless.START, "test", "target", "tenant-a", "request-1")


@pytest.fixture
def wire() -> Wire:
    """One transport: what is counted here is behind it."""
    return NATIVE_UNIX


class Counted:
    """The gate's own parts; so many batches were decided, with so many scripts."""

    def __init__(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = self.scripts = 0
        checker = gate._checker
        check, take = checker.check, checker._limiter.take

        def checked(*arguments: Any, **named: Any) -> Any:
            self.batches += 1
            return check(*arguments, **named)

        def taken(*arguments: Any, **named: Any) -> Any:
            self.scripts += 1
            return take(*arguments, **named)

        monkeypatch.setattr(checker, "check", checked)
        monkeypatch.setattr(checker._limiter, "take", taken)


@contextmanager
def changing(url: str, record: KeyRecord) -> Iterator[list[float]]:
    """Change a key that nobody asks with, fifty times a second, while the body runs; gives when it was changed."""
    stop, done = threading.Event(), []  # type: tuple[threading.Event, list[float]]

    async def change() -> None:
        async with client_of(url, connect_s=5, answer_s=5) as client:
            store, version, begun_s = CatalogStore(client), record.version, time.monotonic()
            while not stop.is_set():
                changed = structs.replace(record, name=f"name-{version}")
                await store.commit([Put(changed, version)], audit=AUDIT)
                version += 1
                done.append(time.monotonic())
                await asyncio.sleep(max(0.0, begun_s + len(done) / CHANGES_PER_S - time.monotonic()))

    thread = threading.Thread(target=lambda: asyncio.run(change()), name="changes")
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(10)


def call_steadily(asker: Asker, asks: list[Any]) -> list[int]:
    """Ask a thousand times a second for some seconds; the status of each."""
    begun_s, found = time.monotonic(), []  # type: tuple[float, list[int]]
    while (passed_s := time.monotonic() - begun_s) < LASTS_S:
        found += [status(answer) for answer in asker.ask_many(asks)]
        time.sleep(max(0.0, len(found) / CALLS_PER_S - passed_s))
    return found


@pytest.mark.replaces
@pytest.mark.parametrize("follows", [True, False], ids=["with the feed", "without the feed"])
def test_foreign_changes_cost_a_call_nothing(
    catalog: Catalog, gate: Gate, asker: Asker, redis_url: str, monkeypatch: pytest.MonkeyPatch, *, follows: bool
) -> None:
    """At 50 foreign changes and 1,000 calls a second, at most one batch of ten needs a second script; none is 503."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    asks = [question(key=catalog.key(publication)[1], publication=publication) for _ in range(BURST)]
    foreign, _ = catalog.key(publication)
    assert [status(answer) for answer in asker.ask_many(asks)] == [200] * BURST
    if not follows:
        gate._follower.stop(5)
    counted = Counted(gate, monkeypatch)
    with changing(redis_url, foreign) as changes:
        found = call_steadily(asker, asks)
    assert set(found) == {200}
    assert len(changes) > CHANGES_PER_S  # as many as a busy machine comes to
    counts = f"{len(changes)} changes, {len(found)} calls, {counted.batches} batches, {counted.scripts} scripts"
    print(counts)  # noqa: T201  the numbers of decision 22
    assert counted.scripts - counted.batches <= counted.batches / 10


def test_one_own_change_among_foreign_ones_binds_the_next_call(
    catalog: Catalog, gate: Gate, asker: Asker, redis_url: str
) -> None:
    """However fast others change, a key revoked or disabled is refused from the answer on, without the feed too."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    keys = [catalog.key(publication) for _ in range(10)]
    foreign, _ = catalog.key(publication)
    gate._follower.stop(5)
    with changing(redis_url, foreign):
        for number, (record, text) in enumerate(keys):
            ask = question(key=text, publication=publication)
            assert status(asker.ask(ask)) == 200
            if number % 2:
                catalog.remove(Kind.KEY, record)
            else:
                catalog.change(record, disabled=True)
            assert [status(asker.ask(ask)) for _ in range(3)] == [401] * 3


def _user(name: str) -> UserRecord:
    return UserRecord(name, "hash", Role.VIEWER, ("tenant-a",), 0, 0)


def _model() -> ModelRecord:
    facts = ("0" * 19, "tenant-a", "m", "http://127.0.0.1:1", ModelType.TRADITIONAL, Protocol.KSERVE_V1)
    return ModelRecord(*facts, ready=True, message="", checked_at_ms=0, created_at_ms=0, updated_at_ms=0)


def test_what_no_gate_reads_moves_no_epoch(catalog: Catalog, store: redis.Redis) -> None:
    """Users and models come, change and go: epoch and feed stay, the audit does not; every other kind moves them."""
    catalog.tenant()
    publication = catalog.publication()
    before = store.get(names.epoch("0")), store.xlen(names.feed("0"))
    user, model = _user("somebody"), _model()
    catalog.add(user, model)
    catalog.remove(Kind.MODEL, structs.replace(model, version=1))
    catalog.change(structs.replace(user, version=1), disabled=True)
    assert (store.get(names.epoch("0")), store.xlen(names.feed("0"))) == before
    assert store.xlen(names.AUDIT) == 5
    key, _ = catalog.key(publication)
    catalog.commit(Put(_user("another"), 0), Put(structs.replace(key, name="x"), 1))
    assert store.xlen(names.feed("0")) == before[1] + 2
    ((_, entry),) = store.xrevrange(names.feed("0"), count=1)
    assert entry[b"refs"].decode() == f"key:{key.id}"


def test_every_kind_that_a_gate_reads_moves_the_epoch(catalog: Catalog) -> None:
    """What a cache may hold is exactly what moves epochs."""
    catalog.tenant()
    publication = catalog.publication()
    key, _ = catalog.key(publication)
    records: list[Record] = [
        catalog.tenant("tenant-b"), publication, key, _user("somebody"), _model(), HostRecord("h", {}, {}),
        RouteRecord("h/t/m", "u"), PlaceRecord("h/m", "t", "u"),
    ]  # fmt: skip
    assert {type(record) for record in records if entry_of(record) is None} == {UserRecord, ModelRecord, PlaceRecord}
    assert frozenset({Kind.USER, Kind.MODEL, Kind.PLACE}) == UNREAD


def test_a_change_of_very_many_records_is_told_as_one_of_all(catalog: Catalog, store: redis.Redis, gate: Gate) -> None:
    """A feed's entry names a hundred records at most: readers' scripts stay short, and all caches begin anew."""
    catalog.tenant()
    publication = catalog.publication()
    keys = [catalog.key(publication)[0] for _ in range(REFS_MAX + 1)]
    epoch = gate.cache.epoch
    assert epoch
    history = gate.cache.history
    catalog.commit(*(Put(structs.replace(key, name="x"), 1) for key in keys[:REFS_MAX]))
    ((_, entry),) = store.xrevrange(names.feed("0"), count=1)
    assert len(entry[b"refs"].split()) == REFS_MAX
    catalog.commit(*(Delete(Kind.KEY, key.id, 2 if key in keys[:REFS_MAX] else 1) for key in keys))
    ((_, entry),) = store.xrevrange(names.feed("0"), count=1)
    assert entry[b"refs"] == b""
    deadline_s = time.monotonic() + 10
    while gate.cache.history == history:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_rotation_of_very_many_keys_lets_no_cache_begin_anew(
    catalog: Catalog, store: redis.Redis, gate: Gate, redis_url: str
) -> None:
    """Pages of a hundred keys in a row: each is told by name, and a gate that follows forgets nothing else."""
    catalog.tenant()
    publication = catalog.publication()
    _, text = catalog.key(publication)
    with_gate = question(key=text, publication=publication)
    asker = Asker(gate.address)
    assert status(asker.ask(with_gate)) == 200
    history, kept = gate.cache.history, len(gate.cache)
    template, _ = catalog.key(publication)
    pages, page = 100, [structs.replace(template, id=template.id[:3] + os.urandom(8).hex()) for _ in range(REFS_MAX)]

    async def rotate() -> None:
        async with client_of(redis_url, connect_s=5, answer_s=5) as client:
            made = CatalogStore(client)
            for version in range(pages):
                await made.commit([Put(key, version) for key in page], audit=AUDIT)

    asyncio.run(rotate())
    assert store.xlen(names.feed("0")) >= pages
    assert status(asker.ask(with_gate)) == 200
    asker.close()
    assert (gate.cache.history, len(gate.cache)) == (history, kept)
