"""What the budgets store is told of changes, and what happens when it cannot be told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import redis
import redis.asyncio
from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError

from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, TenantRecord
from catalog.store import names, reader
from catalog.store.announcing import Announcer
from catalog.store.lifting import Lifter
from catalog.store.store import CatalogStore, Conflict, OutcomeUnknown, StoreUnavailable

CELLS = 3


@pytest.fixture
async def budgets(another_redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the budgets store."""
    async with redis.asyncio.Redis.from_url(another_redis_url) as client:
        yield client


@pytest.fixture
async def nobody() -> AsyncIterator[redis.asyncio.Redis]:
    """A client of a store that is away."""
    async with redis.asyncio.Redis(unix_socket_path="/nonexistent/store.sock") as client:
        yield client


async def commit(store: CatalogStore, name: str, *, forget: tuple[str, ...] = ()) -> None:
    """Write a tenant."""
    audit = Audit(Recordless.START, "test", name, name, "request-1")
    await store.commit([Put(TenantRecord(name, 0, 0, 0), 0)], audit=audit, forget_usage=forget)


async def epochs(client: redis.asyncio.Redis) -> list[str]:
    """The epoch of every cell."""
    found = await client.mget([names.epoch(str(cell)) for cell in range(CELLS)])
    return [(one or b"").decode() for one in found]


async def test_a_change_is_told_to_every_cell_before_it_is_answered(
    redis_url: str, budgets: redis.asyncio.Redis
) -> None:
    """Each cell has a new epoch and an entry that names what changed."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        store = CatalogStore(client, announcer=Announcer(budgets, CELLS, owes=False))
        before = await epochs(budgets)
        await commit(store, "tenant-a")
        after = await epochs(budgets)
    assert not set(before) & set(after)
    for cell in range(CELLS):
        ((_, fields),) = await budgets.xrange(names.feed(str(cell)))
        assert fields == {b"epoch": after[cell].encode(), b"refs": b"tenant:tenant-a"}


async def test_a_reader_of_a_cell_learns_what_changed(
    redis_url: str, budgets: redis.asyncio.Redis, budgets_execute: Callable[..., Any]
) -> None:
    """The feed of a cell has the form of the records' own, so the same reader follows it."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        store = CatalogStore(client, announcer=Announcer(budgets, CELLS, owes=False))
        await commit(store, "tenant-a")
        seen = (await epochs(budgets))[2]
        await commit(store, "tenant-b")
    delta = reader.catch_up(budgets_execute, seen, cell="2")
    assert delta is not None
    assert delta.refs == {"tenant:tenant-b"}


async def test_a_change_that_cannot_be_told_is_not_answered_as_done(
    redis_url: str, nobody: redis.asyncio.Redis
) -> None:
    """It is written and says that its outcome is unknown; it stays owed."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        announcer = Announcer(nobody, CELLS, owes=False)
        store = CatalogStore(client, announcer=announcer)
        with pytest.raises(OutcomeUnknown):
            await commit(store, "tenant-a")
        assert await store.get(Kind.TENANT, "tenant-a") is not None
        assert announcer.owes
        assert not store.is_told


async def test_what_is_owed_is_told_by_the_next_who_can_and_names_nothing(
    budgets: redis.asyncio.Redis, budgets_execute: Callable[..., Any]
) -> None:
    """Nobody knows any more what changed, so readers must take it that everything did."""
    await Announcer(budgets, CELLS, owes=False).announce_all(["tenant:x"], 3)
    seen = (await epochs(budgets))[0]
    announcer = Announcer(budgets, CELLS, owes=False)
    announcer.owe()
    await announcer.announce_all(["tenant:tenant-a"], 3)
    assert not announcer.owes
    assert reader.catch_up(budgets_execute, seen, cell="0") is None


async def test_a_new_process_tells_what_an_earlier_one_may_have_left(budgets: redis.asyncio.Redis) -> None:
    """The one before may have died between writing and telling."""
    announcer = Announcer(budgets, CELLS)
    task = asyncio.create_task(announcer.run(), name="announcer")
    try:
        async with asyncio.timeout(10):
            while announcer.owes:  # noqa: ASYNC110  what is told is told by no event
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
    assert all(await epochs(budgets))


async def test_failures_are_counted_and_tried_again(nobody: redis.asyncio.Redis) -> None:
    """A budgets store that is away keeps nobody from trying, and every failure is told."""
    failures: list[int] = []
    twice = asyncio.Event()

    def failed() -> None:
        failures.append(1)
        if len(failures) == 2:
            twice.set()

    task = asyncio.create_task(Announcer(nobody, CELLS, on_error=failed).run(), name="announcer")
    try:
        async with asyncio.timeout(10):
            await twice.wait()
    finally:
        task.cancel()


async def test_counters_of_what_is_gone_are_retired_where_they_are(
    redis_url: str, budgets: redis.asyncio.Redis, store: redis.Redis
) -> None:
    """Usage is kept in the budgets store; unpublishing gives it its end and its owner there, and makes none."""
    await budgets.hset("tk:usage:{0}:p:x", "total", "5")
    store.hset("tk:usage:{0}:p:x", "total", "5")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        catalog = CatalogStore(client, announcer=Announcer(budgets, CELLS, owes=False))
        await commit(catalog, "tenant-a", forget=("tk:usage:{0}:p:x", "tk:usage:{0}:p:y"))
    assert 396 * 86_400 < await budgets.ttl("tk:usage:{0}:p:x") <= 397 * 86_400
    assert await budgets.hget("tk:usage:{0}:p:x", "tenant") is not None  # type: ignore[misc]  # its stub is a union
    assert not await budgets.exists("tk:usage:{0}:p:y")
    assert 0 < await budgets.ttl("tk:usage:{0}:p:y:gone") <= 3600
    assert store.ttl("tk:usage:{0}:p:x") == -1


class _SlowCells(Announcer):
    """The true announcer whose telling waits until it is let go, and fails where it is told to."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__(client, CELLS, owes=False)
        self.told: list[tuple[str, ...]] = []
        self.gates: dict[tuple[str, ...], asyncio.Event] = {}
        self.failing: set[tuple[str, ...]] = set()

    async def _tell(self, refs: Sequence[str], records: str) -> None:
        del records
        refs = tuple(refs)
        if refs in self.gates:
            await self.gates[refs].wait()
        if refs in self.failing:
            raise redis.ConnectionError("away")
        self.told.append(refs)


async def test_a_telling_clears_nothing_that_came_to_be_owed_after_it_began(budgets: redis.asyncio.Redis) -> None:
    """One change is told while another's telling fails: the other stays owed, and is told in time."""
    announcer = _SlowCells(budgets)
    announcer.gates[("key:1",)] = asyncio.Event()
    announcer.failing.add(("key:2",))
    first = asyncio.create_task(announcer.announce_all(["key:1"], 3))
    await asyncio.sleep(0)
    with pytest.raises(redis.ConnectionError):
        await announcer.announce_all(["key:2"], 3)
    announcer.gates[("key:1",)].set()
    await first
    assert announcer.owes
    await announcer.announce_all(["key:3"], 3)
    assert announcer.told == [("key:1",), ()]
    assert not announcer.owes


async def test_single_changes_are_told_once_and_by_name(budgets: redis.asyncio.Redis) -> None:
    """Beside a running keeper: nobody's cache is emptied for nothing."""
    announcer = _SlowCells(budgets)
    task = asyncio.create_task(announcer.run(), name="announcer")
    try:
        for number in range(3):
            await announcer.announce_all([f"key:{number}"], 3)
            await asyncio.sleep(0.01)
    finally:
        task.cancel()
    assert announcer.told == [("key:0",), ("key:1",), ("key:2",)]


async def test_a_commit_that_comes_too_late_writes_nothing(
    redis_url: str, budgets: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gave up has told the budgets store; a write after that would never be told."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        store = CatalogStore(client, announcer=Announcer(budgets, CELLS, owes=False))
        now_ms = await store.now_ms()

        async def past() -> int:
            return now_ms - 10_000

        monkeypatch.setattr(store, "now_ms", past)
        with pytest.raises(StoreUnavailable):
            await commit(store, "tenant-a")
        assert await store.get(Kind.TENANT, "tenant-a") is None


async def test_a_record_made_anew_is_not_taken_for_the_one_before(redis_url: str) -> None:
    """Deleted and made again it has the same version; who read the first cannot write over the second."""
    audit = Audit(Recordless.START, "test", "x", "x", "request-1")
    first, second = TenantRecord("tenant-a", 0, 1_000, 1_000), TenantRecord("tenant-a", 0, 2_000, 2_000)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        store = CatalogStore(client)
        await store.commit([Put(first, 0)], audit=audit)
        await store.commit([Delete(Kind.TENANT, "tenant-a", 1)], audit=audit)
        await store.commit([Put(second, 0)], audit=audit)
        with pytest.raises(Conflict):
            await store.commit([Put(structs.replace(first, disabled=True), 1)], audit=audit)
        assert await store.get(Kind.TENANT, "tenant-a") == second


async def test_a_lost_cancellation_does_not_keep_it_alive() -> None:
    """What tells, and what lifts, ends even where a library swallowed the cancellation, as it may before 3.12."""
    for lifts in (False, True):
        client: Any = _Swallowing()
        announcer = Announcer(client, 1)
        work = Lifter(lambda known=client: known, client, announcer, 1) if lifts else announcer
        task = asyncio.create_task(work.run())
        await client.asked.wait()
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()


class _Swallowing:
    """A client whose questions outlive a cancellation, and fail then."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def pipeline(self, *, transaction: bool) -> Any:
        """Fail, later."""
        assert not transaction
        return self

    async def __aenter__(self) -> Any:
        self.asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise RedisConnectionError("as it goes")

    async def __aexit__(self, *_: object) -> None:
        """Nothing was opened."""
