"""Thousands of publications: a change comes through in time, and the admin's event loop is held for no moment."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis.asyncio
from loophold import watched_loop
from msgspec import structs
from prometheus_client import CollectorRegistry

from catalog.changes import Put
from catalog.records import Limits, PublicationRecord
from catalog.status import State
from catalog.store.store import MAX_CHANGES, CatalogStore
from publisher.envoy.admin import CLUSTERS
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.sink import FilesSink
from publisher.feed import PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.publisher import Publisher
from runtime.files import Mark, mark_of
from runtime.lifecycle import running
from tests.e2e.proxy import openai, publication
from tests.publisher.test_publisher import AUDIT, until

COUNT = 3_000
LONGEST_HOLD_S = 0.05
SLACK = 10
"""What a busy machine may add to it."""


@dataclass
class Quick:
    """Stands for an Envoy that has taken up any file by the time that it is asked."""

    folder: Path
    asked: int = field(default=0)

    async def version(self, kind: str) -> str:
        """What the file's head says."""
        with (self.folder / (CLUSTERS_FILE if kind == CLUSTERS else ROUTES_FILE)).open(encoding="utf-8") as file:
            found = re.search(r'"version_info": "([^"]*)"', file.read(200))
        return found[1] if found else ""

    async def refusals(self, _: str) -> int:
        """It refuses nothing."""
        return 0

    async def warming(self) -> int:
        """It knows every server."""
        return 0


@dataclass
class Bench:
    """A publisher with thousands of publications, all live."""

    catalog: CatalogStore
    publisher: Publisher
    folder: Path
    records: list[PublicationRecord]

    async def live(self, record: PublicationRecord) -> None:
        """Commit a record, and wait until it is live."""
        await self.catalog.commit([Put(record, record.version - 1)], audit=AUDIT)
        self.publisher.poke()
        await until(lambda: self.publisher.status(record.uid, record.version).state is State.LIVE)

    def marks(self) -> list[Mark | None]:
        """What tells whether a file was written."""
        return [mark_of(self.folder / name) for name in (CLUSTERS_FILE, ROUTES_FILE)]


@pytest.fixture
async def bench(redis_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """All of them were published by a process that has ended: this one finds them in the store and in the files."""
    records = [
        publication(f"p{n}", f"/models/m{n}") if n % 3 == 0 else openai(f"p{n}", f"/v1/models/m{n}")
        for n in range(COUNT)
    ]
    async with (
        redis.asyncio.Redis.from_url(redis_url) as client,
        redis.asyncio.Redis.from_url(redis_url) as follower,
    ):
        catalog = CatalogStore(client)
        for start in range(0, COUNT, MAX_CHANGES):
            await catalog.commit([Put(record, 0) for record in records[start : start + MAX_CHANGES]], audit=AUDIT)
        sink = FilesSink(tmp_path, Quick(tmp_path), upstream_ca="/ca.pem")
        sink.prepare()
        metrics = PublisherMetrics(CollectorRegistry())
        publisher = Publisher(catalog, PublicationFeed(follower), sink, metrics)
        yield Bench(catalog, publisher, tmp_path, records)


async def test_a_change_among_thousands_holds_no_loop(bench: Bench) -> None:
    """From nothing in the files to all of them, a new one, one that moves: the loop's longest hold is 50 ms at most."""
    async with running(bench.publisher.run(), name="publisher"), watched_loop() as hold:
        await until(lambda: bench.publisher.status(bench.records[-1].uid, 1).state is State.LIVE)
        await bench.live(openai("new", "/v1/models/new"))
        await bench.live(structs.replace(bench.records[0], path="/models/moved", version=2))
    assert hold.longest_s < LONGEST_HOLD_S * SLACK


async def test_a_change_of_limits_writes_nothing(bench: Bench) -> None:
    """Envoy sees no limits: they are told live, and no file is touched."""
    async with running(bench.publisher.run(), name="publisher"):
        await until(lambda: bench.publisher.status(bench.records[-1].uid, 1).state is State.LIVE)
        before = bench.marks()
        await bench.live(structs.replace(bench.records[0], limits=Limits(1, 2, 3, 4), version=2))
        assert bench.marks() == before
        await bench.live(structs.replace(bench.records[0], path="/models/moved", version=3))
        assert bench.marks() != before
