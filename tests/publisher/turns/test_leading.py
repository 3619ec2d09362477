"""Several processes that could publish: one does, another takes over, never two at once, and all say the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry

from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import PublicationRecord
from catalog.status import State
from catalog.store.store import CatalogStore
from publisher.feed import PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.plan import Plan
from publisher.publisher import Publisher
from publisher.turns.board import Board
from publisher.turns.leading import Leading
from publisher.turns.lease import Lease
from tests.e2e.proxy import publication

PATIENCE_S = 20
LIFE_MS = 1_200
AUDIT = Audit(actor=Recordless.START, action="test", target="any", tenant="tenant-a", request_id="r")


@dataclass
class Folder:
    """What all processes write to: who wrote when, by one clock, and what is in force."""

    uids: frozenset[str] = frozenset()
    writes: list[tuple[str, float]] = field(default_factory=list)

    def turns(self) -> list[str]:
        """Who wrote, each time it was another than before."""
        names = [name for name, _ in self.writes]
        return names[:1] + [later for earlier, later in pairwise(names) if later != earlier]


@dataclass
class Sink:
    """One process's way to the folder; slow, so that a write can be on its way when the lease is lost."""

    name: str
    folder: Folder
    may_write: Callable[[], bool]

    waiting: str = ""

    async def served(self) -> frozenset[str]:
        """As the sinks do."""
        return self.folder.uids

    async def follow(self, _: Callable[[], None]) -> None:
        """As the sinks do."""
        await asyncio.Event().wait()

    async def apply(self, wanted: Plan) -> dict[str, str]:
        """As the sinks do."""
        for _ in range(3):
            await asyncio.sleep(0.01)
            if not self.may_write():
                continue
            self.folder.writes.append((self.name, time.monotonic()))
            self.folder.uids = frozenset(upstream.publication for upstream in wanted.upstreams)
        return {}


class Cuttable(Lease):
    """The true lease with one fault: once cut off, nothing is renewed and nothing given back."""

    cut_off = False

    async def hold(self, board: Board | None = None) -> bool:
        if self.cut_off:
            raise ConnectionError("cut off")
        return await super().hold(board)

    async def release(self) -> None:
        if self.cut_off:
            raise ConnectionError("cut off")
        await super().release()


@dataclass
class Process:
    """One that could publish."""

    name: str
    leading: Leading
    lease: Cuttable
    registry: CollectorRegistry
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.leading.run(), name=self.name)

    async def stop(self) -> None:
        """As a process does that was asked to."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def leads(self) -> bool:
        return self.registry.get_sample_value("tollkeeper_publisher_leader") == 1

    def states(self, records: list[PublicationRecord]) -> list[State]:
        return [self.leading.status(record.uid, record.version).state for record in records]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Bench:
    """Two processes on one store and one folder."""

    catalog: CatalogStore
    folder: Folder
    one: Process
    other: Process

    async def commit(self, *records: PublicationRecord) -> None:
        await self.catalog.commit([Put(record, record.version - 1) for record in records], audit=AUDIT)


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    """Nothing runs yet."""
    async with AsyncExitStack() as stack:
        folder = Folder()

        async def client() -> redis.asyncio.Redis:
            return await stack.enter_async_context(redis.asyncio.Redis.from_url(redis_url))

        async def process(name: str) -> Process:
            registry = CollectorRegistry()
            lease = Cuttable(await client(), name, life_ms=LIFE_MS)
            metrics = PublisherMetrics(registry)
            sink = Sink(name, folder, lease.held)
            publisher = Publisher(CatalogStore(await client()), PublicationFeed(await client()), sink, metrics)
            return Process(name, Leading(lease, publisher, metrics), lease, registry)

        made = Bench(CatalogStore(await client()), folder, await process("one"), await process("other"))
        yield made
        for each in (made.one, made.other):
            if each.task is not None:
                await each.stop()


async def test_one_publishes_and_both_tell_the_same(bench: Bench) -> None:
    """Whichever is asked says live when it is, for what was there before and for what comes while they run."""
    first, second = publication("p1", "/models/a"), publication("p2", "/models/b")
    await bench.commit(first)
    bench.one.start()
    await until(lambda: bench.one.leads)
    bench.other.start()
    await until(lambda: bench.other.states([first]) == [State.LIVE])
    await bench.commit(second)
    await until(lambda: bench.other.states([first, second]) == [State.LIVE] * 2)
    assert bench.one.states([first, second]) == [State.LIVE] * 2
    assert (bench.one.leads, bench.other.leads) == (True, False)
    assert bench.folder.turns() == ["one"]


async def test_who_stops_lets_the_other_begin(bench: Bench) -> None:
    """A graceful stop gives the lease back; what was live is said to be live all the time."""
    first, second = publication("p1", "/models/a"), publication("p2", "/models/b")
    await bench.commit(first)
    bench.one.start()
    await until(lambda: bench.one.states([first]) == [State.LIVE])
    bench.other.start()
    await until(lambda: bench.other.states([first]) == [State.LIVE])
    stopping = asyncio.create_task(bench.one.stop())
    told = set()
    while not bench.other.leads:
        told.add(bench.other.states([first])[0])
        await asyncio.sleep(0.002)
    await stopping
    assert told == {State.LIVE}
    assert bench.other.states([first]) == [State.LIVE]
    await bench.commit(second)
    await until(lambda: bench.other.states([first, second]) == [State.LIVE] * 2)
    assert bench.folder.turns() == ["one", "other"]


async def test_who_is_cut_off_stops_before_the_other_begins(bench: Bench) -> None:
    """It cannot renew and cannot say so: it has written for the last time before the other one leads."""
    records = [publication(f"p{number:02}", f"/models/m{number}") for number in range(40)]
    bench.one.start()
    await until(lambda: bench.one.leads)
    bench.other.start()
    busy = asyncio.create_task(_commit_all(bench, records))
    await until(lambda: len(bench.folder.writes) > 5)
    bench.one.lease.cut_off = True
    cut_s = time.monotonic()
    await until(lambda: bench.other.leads)
    took_s = time.monotonic() - cut_s
    began_s = time.monotonic()
    assert not bench.one.leads
    await busy
    await until(lambda: bench.other.states(records) == [State.LIVE] * len(records))
    assert bench.folder.turns() == ["one", "other"]
    assert max(at for name, at in bench.folder.writes if name == "one") < began_s
    assert took_s < PATIENCE_S


async def _commit_all(bench: Bench, records: list[PublicationRecord]) -> None:
    for record in records:
        await bench.commit(record)
        await asyncio.sleep(0.05)


async def test_nobody_writes_without_the_lease(bench: Bench) -> None:
    """A publisher that runs on by mistake still meets a sink that asks first."""
    await bench.commit(publication("p1", "/models/a"))
    sink = Sink("late", bench.folder, bench.one.lease.held)
    await sink.apply(Plan((), (), {}))
    assert bench.folder.writes == []


async def test_who_stops_leaves_no_lease(bench: Bench) -> None:
    """Whoever comes next need not wait for its end."""
    bench.one.start()
    await until(lambda: bench.one.leads)
    await bench.one.stop()
    assert await Lease(bench.other.lease._client, "next", life_ms=LIFE_MS).hold()
