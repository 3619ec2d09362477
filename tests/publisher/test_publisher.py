"""The publisher's own loop: it ends when told, tries again when something fails, and finds who is to blame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import redis
import redis.asyncio
from msgspec import structs
from prometheus_client import CollectorRegistry

from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import PublicationRecord
from catalog.status import State, Status
from catalog.store import names
from catalog.store.store import CatalogStore
from publisher.feed import PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.plan import Plan
from publisher.publisher import Publisher
from publisher.sink import NotServed, Refused
from runtime.lifecycle import running
from tests.e2e.proxy import publication

PATIENCE_S = 10
AUDIT = Audit(actor=Recordless.START, action="test", target="any", tenant="tenant-a", request_id="r")


@dataclass
class Sink:
    """Takes any plan but those with a bad publication; remembers what was in force."""

    most = 100
    rewrites = True
    speaks_grpc = True
    injects_values = True
    injects_secrets = True
    bad: set[str] = field(default_factory=set)
    away: bool = False
    in_force: list[set[str]] = field(default_factory=list)
    attempts: int = 0
    bad_versions: set[tuple[str, str]] = field(default_factory=set)  # uid, server's host name

    not_live: dict[str, str] = field(default_factory=dict)  # uid -> why it is not reached
    moved: Callable[[], None] = lambda: None
    waiting: str = ""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)  # while unset, a plan takes long

    def __post_init__(self) -> None:
        self.go_on.set()

    async def served(self) -> frozenset[str]:
        """As the sinks do."""
        return frozenset(self.in_force[-1]) if self.in_force else frozenset()

    async def follow(self, moved: Callable[[], None]) -> None:
        """As the sinks do."""
        self.moved = moved
        await asyncio.Event().wait()

    async def apply(self, wanted: Plan) -> dict[str, str]:
        """As the sinks do."""
        self.attempts += 1
        await self.go_on.wait()
        uids = {upstream.publication for upstream in wanted.upstreams}
        if self.away:
            raise NotServed("the proxy is away")
        servers = {(upstream.publication, upstream.targets[0].hostname) for upstream in wanted.upstreams}
        if uids & self.bad or servers & self.bad_versions:
            raise Refused("the proxy said no")
        self.in_force.append(uids)
        return {uid: why for uid, why in self.not_live.items() if uid in uids}


@dataclass
class Bench:
    """A publisher, its catalog and its sink."""

    catalog: CatalogStore
    sink: Sink
    publisher: Publisher
    registry: CollectorRegistry

    async def commit(self, records: Sequence[PublicationRecord]) -> None:
        """Write the records; versions count from what they say."""
        puts = [Put(record, record.version - 1) for record in records]
        await self.catalog.commit(puts, audit=AUDIT)

    async def settled(self, records: Sequence[PublicationRecord]) -> list[State]:
        """Where the records stand once none is pending."""
        await until(lambda: State.PENDING not in self.states(records))
        return self.states(records)

    def states(self, records: Sequence[PublicationRecord]) -> list[State]:
        """Where the records stand."""
        return [self.publisher.status(record.uid, record.version).state for record in records]

    def count(self, cause: str) -> float:
        """Failures so far."""
        return self.registry.get_sample_value("tollkeeper_publisher_errors_total", {"cause": cause}) or 0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nobody announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    """A publisher that is not running yet, on an empty catalog."""
    async with (
        redis.asyncio.Redis.from_url(redis_url) as client,
        redis.asyncio.Redis.from_url(redis_url) as follower,
    ):
        catalog, sink, registry = CatalogStore(client), Sink(), CollectorRegistry()
        publisher = Publisher(catalog, PublicationFeed(follower), sink, PublisherMetrics(registry))
        yield Bench(catalog, sink, publisher, registry)


def records(count: int) -> list[PublicationRecord]:
    """Publications p00, p01 and so on."""
    return [publication(f"p{number:02}", f"/models/p{number}") for number in range(count)]


@pytest.mark.parametrize("bad", [set(), {"p00"}, {"p06"}, {"p00", "p03", "p06"}, {f"p0{n}" for n in range(7)}])
async def test_the_refused_are_found_among_many(bench: Bench, bad: set[str]) -> None:
    """Whoever the proxy refuses is failed, everyone else is in force, and the last plan in force says so."""
    seven = records(7)
    bench.sink.bad = bad
    await bench.commit(seven)
    async with running(bench.publisher.run(), name="publisher"):
        states = await bench.settled(seven)
    assert states == [State.FAILED if record.uid in bad else State.LIVE for record in seven]
    assert bench.sink.in_force[-1] == {record.uid for record in seven} - bad


async def test_who_was_refused_is_not_tried_at_every_change(bench: Bench) -> None:
    """A bad publication costs its own attempts only; a new version of it is tried again."""
    first, second, third = records(3)
    bench.sink.bad = {first.uid}
    await bench.commit([first, second])
    async with running(bench.publisher.run(), name="publisher"):
        assert await bench.settled([first, second]) == [State.FAILED, State.LIVE]
        attempts = bench.sink.attempts
        await bench.commit([third])
        assert await bench.settled([third]) == [State.LIVE]
        assert bench.sink.attempts == attempts + 1
        bench.sink.bad = set()
        mended = structs.replace(first, version=2)
        await bench.commit([mended])
        assert await bench.settled([mended]) == [State.LIVE]


@pytest.mark.parametrize("bad", [{"p06"}, {"p00", "p03"}, {"p04", "p05", "p06"}])
async def test_after_a_restart_who_was_served_stays_served(bench: Bench, bad: set[str]) -> None:
    """A new process that finds new publications refused never takes the ones in force away while it searches."""
    seven = records(7)
    before = {record.uid for record in seven} - bad
    bench.sink.bad, bench.sink.in_force = bad, [before]
    await bench.commit(seven)
    async with running(bench.publisher.run(), name="publisher"):
        await bench.settled(seven)
    assert bench.sink.attempts > 1
    assert all(before <= uids for uids in bench.sink.in_force)


async def test_one_in_force_that_turned_bad_unseen_takes_nobody_along(bench: Bench) -> None:
    """Changed while no process ran: it alone goes, and the new ones come."""
    seven = records(7)
    before = {record.uid for record in seven[:5]}
    bench.sink.bad, bench.sink.in_force = {"p02"}, [before]
    await bench.commit(seven)
    async with running(bench.publisher.run(), name="publisher"):
        states = await bench.settled(seven)
    assert [record.uid for record, state in zip(seven, states, strict=True) if state is State.FAILED] == ["p02"]
    assert all(before - {"p02"} <= uids for uids in bench.sink.in_force)


async def test_several_in_force_that_turned_bad_unseen_are_found(bench: Bench) -> None:
    """They block nobody for good."""
    seven = records(7)
    bench.sink.bad, bench.sink.in_force = {"p02", "p04"}, [{record.uid for record in seven}]
    await bench.commit(seven)
    async with running(bench.publisher.run(), name="publisher"):
        states = await bench.settled(seven)
    assert [state for state in states if state is State.FAILED] == [State.FAILED] * 2
    assert bench.sink.in_force[-1] == {record.uid for record in seven} - bench.sink.bad


async def test_a_refused_change_leaves_the_version_before_in_force(bench: Bench) -> None:
    """The change is failed and says why; the publication, and others that changed with it, never stop."""
    seven = records(7)
    await bench.commit(seven)
    async with running(bench.publisher.run(), name="publisher"):
        await bench.settled(seven)
        bench.sink.bad_versions = {("p03", "worse.test")}
        changed = [structs.replace(record, url="http://worse.test:80", version=2) for record in seven]
        await bench.commit(changed)
        states = await bench.settled(changed)
        assert bench.publisher.status("p03", 2) == Status(State.FAILED, "the proxy said no")
        assert bench.publisher.status("p03", 1) == Status(State.LIVE)
    assert states.count(State.LIVE) == 6
    first = bench.sink.in_force.index({record.uid for record in seven})
    assert all(len(uids) == 7 for uids in bench.sink.in_force[first:])


async def test_a_refused_move_keeps_its_place_from_who_comes_after(bench: Bench) -> None:
    """Who was given the path that did not become free is failed and told whose it is."""
    mover, comer = publication("a", "/x"), publication("b", "/x", created_at_ms=2)
    await bench.commit([mover])
    async with running(bench.publisher.run(), name="publisher"):
        await bench.settled([mover])
        bench.sink.bad_versions = {("a", "worse.test")}
        moved = structs.replace(mover, path="/y", url="http://worse.test:80", version=2)
        await bench.commit([moved, comer])
        assert await bench.settled([moved, comer]) == [State.FAILED, State.FAILED]
        assert "is a's" in bench.publisher.status("b", 1).reason
    assert bench.sink.in_force[-1] == {"a"}


async def test_of_two_on_one_path_the_second_goes_live_when_the_first_is_gone(bench: Bench) -> None:
    """A fault of the plan is looked at anew at every change."""
    first, second = publication("a", "/x"), publication("b", "/x", created_at_ms=2)
    await bench.commit([first, second])
    async with running(bench.publisher.run(), name="publisher"):
        assert await bench.settled([first, second]) == [State.LIVE, State.FAILED]
        await bench.commit([structs.replace(first, path="/y", version=2)])
        await until(lambda: bench.states([second]) == [State.LIVE])


async def test_a_proxy_that_is_away_is_tried_again(bench: Bench) -> None:
    """Nothing is live meanwhile, the status says why, and the failures are counted."""
    (record,) = records(1)
    bench.sink.away = True
    await bench.commit([record])
    async with running(bench.publisher.run(), name="publisher"):
        await until(lambda: bench.count("proxy") >= 2)
        assert bench.publisher.status(record.uid, 1) == Status(State.PENDING, "the proxy is away")
        bench.sink.away = False
        assert await bench.settled([record]) == [State.LIVE]


async def test_who_is_in_force_and_not_reached_is_failed_until_it_is(bench: Bench) -> None:
    """The sink's word is the status, nobody else is touched, and it is tried again without another change."""
    first, second = records(2)
    bench.sink.not_live = {first.uid: "no call reaches it"}
    await bench.commit([first, second])
    async with running(bench.publisher.run(), name="publisher"):
        assert await bench.settled([first, second]) == [State.FAILED, State.LIVE]
        assert bench.publisher.status(first.uid, 1) == Status(State.FAILED, "no call reaches it")
        assert [trouble.code for trouble in bench.publisher.troubles()] == ["publications_refused"]
        await until(lambda: bench.count("not_live") >= 2)
        bench.sink.not_live = {}
        await until(lambda: bench.states([first]) == [State.LIVE])
        attempts = bench.sink.attempts
        bench.publisher.poke()
        await until(lambda: bench.sink.attempts > attempts)
        assert not bench.publisher.troubles()


async def test_a_version_that_is_not_reached_is_not_live_because_the_one_before_was(bench: Bench) -> None:
    """The change is what callers get now; it is told by its own version."""
    (record,) = records(1)
    await bench.commit([record])
    async with running(bench.publisher.run(), name="publisher"):
        assert await bench.settled([record]) == [State.LIVE]
        bench.sink.not_live = {record.uid: "no call reaches it"}
        changed = structs.replace(record, path="/elsewhere", version=2)
        await bench.commit([changed])
        assert await bench.settled([changed]) == [State.FAILED]
        assert bench.publisher.board.failed[record.uid].version == 2
        assert record.uid not in bench.publisher.board.live


async def test_what_moved_is_applied_again(bench: Bench) -> None:
    """Nothing was committed: the sink saw that what is in force is not what it was given."""
    (record,) = records(1)
    await bench.commit([record])
    async with running(bench.publisher.run(), name="publisher"):
        await bench.settled([record])
        await until(lambda: bench.sink.attempts == len(bench.sink.in_force))
        applied = bench.sink.attempts
        bench.sink.moved()
        await until(lambda: len(bench.sink.in_force) > applied)
        assert bench.states([record]) == [State.LIVE]


async def test_who_is_pending_is_told_what_is_waited_for(bench: Bench) -> None:
    """In the middle of a plan, and not a moment longer."""
    (record,) = records(1)
    bench.sink.go_on.clear()
    await bench.commit([record])
    async with running(bench.publisher.run(), name="publisher"):
        await until(lambda: bench.sink.attempts == 1)
        bench.sink.waiting = "3 of 5 publications answer"
        assert bench.publisher.status(record.uid, 1) == Status(State.PENDING, "3 of 5 publications answer")
        bench.sink.waiting = ""
        bench.sink.go_on.set()
        assert await bench.settled([record]) == [State.LIVE]


async def test_a_poke_does_not_wait_for_the_feed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin API says that it committed, and that is enough."""

    async def silent() -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(bench.publisher._feed, "changed", silent)
    (record,) = records(1)
    await bench.commit([record])
    async with running(bench.publisher.run(), name="publisher"):
        bench.publisher.poke()
        assert await bench.settled([record]) == [State.LIVE]


async def test_changes_of_other_records_are_not_acted_on(bench: Bench, store: redis.Redis) -> None:
    """Keys come and go without the proxy hearing of it."""
    feed = bench.publisher._feed
    assert await feed.changed()
    await bench.commit(records(1))
    assert await feed.changed()
    key = names.feed("0")
    newest = store.xrevrange(key, count=1)[0][0].decode()
    following = int(newest.partition("-")[0]) + 1
    store.xadd(key, {"epoch": "x", "refs": "key:1 tenant:pub:x"}, id=f"{following}-0")
    assert not await feed.changed()


@pytest.mark.parametrize("part", ["_store", "_feed"])
async def test_a_lost_cancellation_does_not_keep_it_alive(
    bench: Bench, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends even where a library swallowed the cancellation, as asyncio.wait_for may before Python 3.12."""
    entered = asyncio.Event()

    async def swallow(*_: object, **__: object) -> list[str]:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return []
        return []

    monkeypatch.setattr(getattr(bench.publisher, part), "ids" if part == "_store" else "changed", swallow)
    task = asyncio.create_task(bench.publisher.run())
    bench.publisher.poke()
    await entered.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
    assert done
    assert task.cancelled()
