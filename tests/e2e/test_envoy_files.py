"""Publishing into a running Envoy: live in time, nobody else disturbed, and the way back from a refusal."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import redis.asyncio
from msgspec import structs
from prometheus_client import CollectorRegistry

from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, PublicationRecord
from catalog.status import State, Status
from catalog.store.store import CatalogStore
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.sink import FilesSink
from publisher.feed import PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.plan import plan
from publisher.publisher import Publisher
from publisher.sink import NotServed, Refused
from runtime.lifecycle import running
from tests.e2e.proxy import (
    HOST,
    PATIENCE_S,
    Envoy,
    Gate,
    Reply,
    Upstream,
    head,
    openai,
    options_for,
    publication,
    short_folder,
    stripped,
)

LIVE_WITHIN_S = 2 * 5
"""Two seconds promised, five times as much on a busy machine."""

AUDIT = Audit(actor=Recordless.START, action="test", target="any", tenant="tenant-a", request_id="r")


@dataclass
class Bench:
    """A running Envoy with nothing published, and the sink that writes its files."""

    envoy: Envoy
    gate: Gate
    up: Upstream
    sink: FilesSink


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An Envoy of the test's own."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as up:
        envoy = Envoy(options_for(folder, gate.target))
        async with EnvoyAdmin(envoy.options.admin_socket) as admin:
            sink = FilesSink(folder, admin, upstream_ca="/etc/ssl/certs/ca-certificates.crt")
            sink.prepare()
            with envoy:
                yield Bench(envoy, gate, up, sink)


async def test_published_served_and_unpublished(bench: Bench) -> None:
    """When ``apply`` returns, the change is in force: routes first out, clusters last."""
    assert bench.envoy.get("/models/a").status == 404
    await bench.sink.apply(plan([publication("a", "/models/a", bench.up.url)]))
    assert bench.envoy.get("/models/a").upstream == "up"
    await bench.sink.apply(plan([publication("b", "/models/b", bench.up.url)]))
    assert (bench.envoy.get("/models/a").status, bench.envoy.get("/models/b").upstream) == (404, "up")
    assert bench.envoy.stat("cluster.publication-a.membership_total") == 0
    await bench.sink.apply(plan([]))
    assert bench.envoy.get("/models/b").status == 404


async def test_nothing_new_writes_nothing(bench: Bench) -> None:
    """The same plan again leaves the files untouched."""
    made = plan([publication("a", "/models/a", bench.up.url)])
    await bench.sink.apply(made)
    files = [bench.envoy.folder / name for name in (CLUSTERS_FILE, ROUTES_FILE)]
    before = [file.stat().st_ino for file in files]
    await bench.sink.apply(made)
    assert [file.stat().st_ino for file in files] == before


async def test_a_restarted_envoy_serves_what_was_published(bench: Bench) -> None:
    """The files outlive every process."""
    await bench.sink.apply(plan([publication("a", "/models/a", bench.up.url)]))
    bench.sink.prepare()
    bench.envoy.__exit__()
    with pytest.raises(NotServed, match="admin socket"):
        await bench.sink.apply(plan([]))
    with bench.envoy:
        assert bench.envoy.get("/models/a").upstream == "up"


@pytest.mark.parametrize("name", [CLUSTERS_FILE, ROUTES_FILE])
async def test_a_damaged_file_is_written_anew(bench: Bench, name: str) -> None:
    """Whatever somebody wrote over it."""
    made = plan([publication("a", "/models/a", bench.up.url)])
    await bench.sink.apply(made)
    _overwrite(bench.envoy.folder / name, "{")
    await bench.sink.apply(made)
    assert bench.envoy.get("/models/a").upstream == "up"
    assert (bench.envoy.folder / name).read_text() != "{"


def _overwrite(path: Path, text: str) -> None:
    draft = path.with_suffix(".x")
    draft.write_text(text)
    draft.replace(path)


def bad_cluster(uid: str) -> PublicationRecord:
    """One whose cluster Envoy refuses: it is to be verified by authorities that are not there."""
    return publication(uid, f"/models/{uid}", "https://127.0.0.1:9")


def without_authorities(bench: Bench) -> FilesSink:
    """A sink whose https clusters are refused by Envoy."""
    return FilesSink(bench.envoy.folder, bench.sink._admin, upstream_ca="/nowhere/ca.pem")


async def test_what_envoy_refuses_is_put_back(bench: Bench) -> None:
    """The last accepted files are in place again, and what they serve never stopped."""
    good = publication("a", "/models/a", bench.up.url)
    await bench.sink.apply(plan([good]))
    before = (bench.envoy.folder / CLUSTERS_FILE).read_text()
    with pytest.raises(Refused, match="cluster_manager"):
        await without_authorities(bench).apply(plan([good, bad_cluster("b")]))
    assert (bench.envoy.folder / CLUSTERS_FILE).read_text() == before
    assert bench.envoy.get("/models/a").upstream == "up"
    assert bench.envoy.get("/models/b").status == 404
    await bench.sink.apply(plan([good, publication("c", "/models/c", bench.up.url)]))
    assert bench.envoy.get("/models/c").upstream == "up"


async def test_a_server_without_an_address_holds_up_nobody(bench: Bench) -> None:
    """A name that cannot be looked up is its own publication's trouble."""
    lost = publication("lost", "/models/lost", "http://no-such-server.invalid:80")
    began = time.monotonic()
    await bench.sink.apply(plan([lost, publication("a", "/models/a", bench.up.url)]))
    assert time.monotonic() - began < LIVE_WITHIN_S
    assert bench.envoy.get("/models/a").upstream == "up"
    assert bench.envoy.get("/models/lost").json["error"]["code"] == "upstream_unavailable"


@contextmanager
def _traffic(envoy: Envoy, path: str) -> Iterator[list[int]]:
    """Calls one after the other on one connection while the body runs; the statuses, 0 for a lost connection."""
    statuses: list[int] = []
    stopping = threading.Event()

    def call() -> None:
        with envoy.connect() as connection:
            while not stopping.is_set():
                connection.sendall(head("GET", path, f"host: {HOST}"))
                statuses.append(Reply.read(connection).status)
                if statuses[-1] == 0:
                    return

    thread = threading.Thread(target=call, name="traffic")
    thread.start()
    try:
        yield statuses
    finally:
        stopping.set()
        thread.join(PATIENCE_S)


async def test_changes_disturb_nobody(bench: Bench) -> None:
    """While others come, change and go, no call fails, no connection drops and a running stream runs to its end."""
    steady = [stripped("steady", "/models/steady", bench.up.url), openai("llm", "/v1/models/llm", bench.up.url)]
    await bench.sink.apply(plan(steady))
    with bench.envoy.connect() as stream, _traffic(bench.envoy, "/models/steady/x") as statuses:
        stream.sendall(head("GET", "/models/steady/slow", f"host: {HOST}"))
        for round_ in range(10):
            others = [publication(f"p{round_}-{n}", f"/models/p{n}", bench.up.url) for n in range(3)]
            await bench.sink.apply(plan([*steady, *others]))
            assert bench.envoy.get("/models/p2").upstream == "up"
            moved = [structs.replace(other, path=f"/moved{other.path}", version=2) for other in others]
            await bench.sink.apply(plan([*steady, *moved]))
            await bench.sink.apply(plan(steady))
            assert bench.envoy.get("/moved/models/p2").status == 404
        whole = await asyncio.to_thread(Reply.read, stream)
    assert whole.body == "." * 100
    assert len(statuses) > 10
    assert set(statuses) == {200}
    assert bench.envoy.stat("listener_manager.listener_modified") == 0


async def test_a_stream_outlives_the_end_of_its_publication(bench: Bench) -> None:
    """Unpublishing stops new calls, not those that were admitted."""
    await bench.sink.apply(plan([stripped("a", "/models/a", bench.up.url)]))
    with bench.envoy.connect() as stream:
        stream.sendall(head("GET", "/models/a/slow", f"host: {HOST}"))
        await asyncio.to_thread(stream.recv, 100, socket.MSG_PEEK)
        await bench.sink.apply(plan([]))
        assert bench.envoy.get("/models/a/slow").status == 404
        whole = await asyncio.to_thread(Reply.read, stream)
    assert whole.body == "." * 100


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody announces."""
    async with asyncio.timeout(LIVE_WITHIN_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass
class Live:
    """A publisher at work on a real catalog."""

    bench: Bench
    catalog: CatalogStore
    publisher: Publisher

    async def until(self, uid: str, version: int, state: State) -> Status:
        """Wait until a publication stands so."""
        await until(lambda: self.publisher.status(uid, version).state is state)
        return self.publisher.status(uid, version)


@pytest.fixture
async def live(bench: Bench, redis_url: str) -> AsyncIterator[Live]:
    """The publisher follows the catalog by its feed alone; nobody pokes it."""
    async with (
        redis.asyncio.Redis.from_url(redis_url) as client,
        redis.asyncio.Redis.from_url(redis_url) as follower,
    ):
        catalog = CatalogStore(client)
        metrics = PublisherMetrics(CollectorRegistry())
        publisher = Publisher(catalog, PublicationFeed(follower), without_authorities(bench), metrics)
        async with running(publisher.run(), name="publisher"):
            yield Live(bench, catalog, publisher)


async def test_a_commit_is_live_soon(live: Live) -> None:
    """Published, moved and unpublished within two seconds of the commit, by the feed alone."""
    record = publication("a", "/models/a", live.bench.up.url)
    assert live.publisher.status("a", 1) == Status(State.PENDING)
    await live.catalog.commit([Put(record, 0)], audit=AUDIT)
    await live.until("a", 1, State.LIVE)
    assert live.bench.envoy.get("/models/a").upstream == "up"
    await live.catalog.commit([Put(structs.replace(record, path="/models/b"), 1)], audit=AUDIT)
    await live.until("a", 2, State.LIVE)
    assert [live.bench.envoy.get(f"/models/{name}").status for name in "ab"] == [404, 200]
    await live.catalog.commit([Delete(Kind.PUBLICATION, "a", 2)], audit=AUDIT)
    await live.until("a", 2, State.PENDING)
    assert live.bench.envoy.get("/models/b").status == 404


async def test_a_bad_publication_blocks_nobody(live: Live) -> None:
    """Those no gateway could be given and those Envoy refuses are failed with a reason; all others are live."""
    good = [publication(uid, f"/models/{uid}", live.bench.up.url) for uid in ("a", "b", "c")]
    bad = [bad_cluster("x"), bad_cluster("y"), publication("z", "/../z")]
    await live.catalog.commit([Put(record, 0) for record in (*bad, *good)], audit=AUDIT)
    for record in good:
        await live.until(record.uid, 1, State.LIVE)
    reasons = [(await live.until(record.uid, 1, State.FAILED)).reason for record in bad]
    assert [reason.split()[0] for reason in reasons] == ["Envoy", "Envoy", "path:"]
    assert live.bench.envoy.get("/models/c").upstream == "up"


async def test_a_mended_publication_goes_live(live: Live) -> None:
    """A failure holds for the version that failed, no longer."""
    await live.catalog.commit([Put(bad_cluster("x"), 0)], audit=AUDIT)
    await live.until("x", 1, State.FAILED)
    await live.catalog.commit([Put(structs.replace(bad_cluster("x"), url=live.bench.up.url), 1)], audit=AUDIT)
    await live.until("x", 2, State.LIVE)
    assert live.bench.envoy.get("/models/x").upstream == "up"


async def test_what_happened_while_envoy_was_away_is_made_up_for(live: Live) -> None:
    """The status says what is wrong meanwhile, and Envoy's return is enough."""
    record = publication("a", "/models/a", live.bench.up.url)
    live.bench.envoy.__exit__()
    await live.catalog.commit([Put(record, 0)], audit=AUDIT)
    await until(lambda: "admin socket" in live.publisher.status("a", 1).reason)
    await asyncio.to_thread(live.bench.envoy.__enter__)
    await live.until("a", 1, State.LIVE)
    assert live.bench.envoy.get("/models/a").upstream == "up"


async def test_a_lost_feed_is_noticed(live: Live, store: redis.Redis) -> None:
    """A store that forgot everything wakes nobody; the publisher finds out and unpublishes what is gone."""
    await live.catalog.commit([Put(publication("a", "/models/a", live.bench.up.url), 0)], audit=AUDIT)
    await live.until("a", 1, State.LIVE)
    store.flushdb()
    await live.until("a", 1, State.PENDING)
    assert live.bench.envoy.get("/models/a").status == 404
