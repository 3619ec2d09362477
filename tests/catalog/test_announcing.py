"""What the budgets store is told of changes, and what happens when it cannot be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from catalog import names, reader
from catalog.announcing import Announcer
from catalog.changes import Audit, Put
from catalog.records import Kind, TenantRecord
from catalog.store import CatalogStore, OutcomeUnknown

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
    audit = Audit("tester", "test", name, name, "request-1")
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


async def test_counters_of_what_is_gone_are_removed_where_they_are(
    redis_url: str, budgets: redis.asyncio.Redis, store: redis.Redis
) -> None:
    """Usage is kept in the budgets store; unpublishing forgets it there."""
    await budgets.hset("tk:usage:{0}:p:x", "total", "5")
    store.hset("tk:usage:{0}:p:x", "total", "5")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        catalog = CatalogStore(client, announcer=Announcer(budgets, CELLS, owes=False))
        await commit(catalog, "tenant-a", forget=("tk:usage:{0}:p:x",))
    assert not await budgets.exists("tk:usage:{0}:p:x")
    assert store.exists("tk:usage:{0}:p:x")
