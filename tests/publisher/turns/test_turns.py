"""Work by turns: one process at a time, and the next as soon as it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio

from publisher.turns import names
from publisher.turns.lease import Lease
from publisher.turns.turns import Turns
from runtime.lifecycle import running


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's database."""
    async with redis.asyncio.Redis.from_url(redis_url) as connected:
        yield connected


class Worker:
    """Says whether it works."""

    def __init__(self, client: redis.asyncio.Redis, holder: str, *, life_ms: int = 3_000) -> None:
        self.begun = 0
        self.works = False
        self.failures = 0
        lease = Lease(client, holder, name=names.MODELS_LEASE, life_ms=life_ms)
        self.turns = Turns(lease, self._work, name="work", failed=self._fail)

    async def _work(self) -> None:
        self.begun, self.works = self.begun + 1, True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False

    def _fail(self) -> None:
        self.failures += 1


async def until(condition: Callable[[], bool]) -> None:
    """Poll: a lease has no event of ours."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_works_and_the_next_begins_when_it_stops(client: redis.asyncio.Redis) -> None:
    """Two processes never work together; a stop hands over at once."""
    first, second = Worker(client, "first"), Worker(client, "second")
    async with running(second.turns.run(), name="second"):
        await until(lambda: second.works)
        async with running(first.turns.run(), name="first"):
            await asyncio.sleep(0.5)
            assert not first.works
    async with running(first.turns.run(), name="first"):
        await until(lambda: first.works)
        assert not second.works


async def test_a_lost_lease_ends_the_work_and_a_new_one_begins_it_anew(client: redis.asyncio.Redis) -> None:
    """Work of a turn before is never gone on with."""
    worker = Worker(client, "mine", life_ms=600)
    async with running(worker.turns.run(), name="mine"):
        await until(lambda: worker.works)
        now_ms = int((await client.time())[0]) * 1000
        await client.set(names.MODELS_LEASE, f"another {now_ms + 3_000}", px=3_000)
        await until(lambda: not worker.works)
        await until(lambda: worker.begun == 2)


async def test_the_publishers_lease_is_another(client: redis.asyncio.Redis) -> None:
    """One process may publish while another follows models."""
    assert await Lease(client, "publishes").hold()
    assert await Lease(client, "follows", name=names.MODELS_LEASE).hold()
