"""The number of cells is agreed through the stores: under another one nobody admits, and nobody writes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gatebench import Asker, Catalog, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry
from valkeycluster import Cluster

from catalog.cell_number import CellsDifferError
from catalog.ids import cell_of, shard_of
from catalog.keys.secrets import Secrets
from catalog.records import Limits
from catalog.store import cells, names
from catalog.store.announcing import Announcer, announce
from catalog.store.store import StoreUnavailable
from gate.assembly import Gate
from gate.bounded import BoundedPolicy
from gate.links import StoreUrls
from runtime.store.clients import client_of

OLD = 4


@pytest.fixture(params=["two stores", "a cluster of budgets"])
def stores(request: pytest.FixtureRequest, redis_url: str) -> Iterator[StoreUrls]:
    """Two empty stores, of which the second may be a Cluster."""
    if request.param == "two stores":
        yield StoreUrls(redis_url, request.getfixturevalue("another_redis_url"), OLD)
        return
    cluster: Cluster = request.getfixturevalue("valkey_cluster")
    cluster.flush()
    yield StoreUrls(redis_url, cluster.url, OLD, wait_ms=2_000)
    cluster.flush()


@contextmanager
def gate_of(
    stores: StoreUrls, secrets: Secrets, *, follows: bool = False, bounded: BoundedPolicy | None = None
) -> Iterator[tuple[Gate, Asker]]:
    """A gate, ready; without the feed nothing but the fence tells it of anything."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/gate.sock", stores, secrets, CollectorRegistry(), bounded=bounded)
        gate.start()
        asker = Asker(gate.address)
        try:
            wait_until(lambda: gate.readiness().ready)
            if not follows:
                gate._follower.stop(5)
            yield gate, asker
        finally:
            asker.close()
            gate.stop()


def with_clients(stores: StoreUrls, work: Callable[[cells.Stores], Awaitable[Any]]) -> Any:
    """Do something with clients of both stores."""

    async def run() -> Any:
        async with client_of(stores.records, connect_s=3, answer_s=3) as records:
            if stores.are_one:
                return await work((records, records))
            async with client_of(stores.budgets, connect_s=3, answer_s=3) as budgets:
                return await work((records, budgets))

    return asyncio.run(run())


def agree(stores: StoreUrls, own: int) -> None:
    """Start as an admin does."""
    with_clients(stores, lambda clients: cells.agree(clients, own))


def change(stores: StoreUrls, new: int) -> int:
    """Change the number for all; the one before."""
    return int(with_clients(stores, lambda clients: cells.set_cells(clients, new, actor="test")))


def calls_of_every_cell(catalog: Catalog, among: int) -> list[Any]:
    """A question in each cell, each of a tenant of its own."""
    asks = []
    for cell in range(among):
        tenant = next(f"tenant-{n}" for n in range(1_000) if cell_of(shard_of(f"tenant-{n}"), among) == cell)
        catalog.tenant(tenant)
        publication = catalog.publication(tenant=tenant, limits=Limits(per_hour=10**6))
        asks.append(question(key=catalog.key(publication, tenant=tenant)[1], publication=publication))
    return asks


def statuses(asker: Asker, asks: list[Any]) -> list[int]:
    """The status of each."""
    return [status(asker.ask(ask)) for ask in asks]


def codes(gate: Gate) -> set[str]:
    """What the gate says is wrong with it."""
    return {trouble.code for trouble in gate.readiness().problems}


@pytest.mark.parametrize("new", [1, 6], ids=["fewer", "more"])
def test_a_gate_with_another_number_admits_nothing_from_the_change_on(
    stores: StoreUrls, secrets: Secrets, new: int
) -> None:
    """It was ready and had proved every cell; now it says what is wrong, and one with the new number serves."""
    agree(stores, OLD)
    catalog = Catalog(stores.records, secrets, stores)
    asks = calls_of_every_cell(catalog, OLD)
    with gate_of(stores, secrets) as (gate, asker):
        assert statuses(asker, asks) == [200] * OLD
        assert change(stores, new) == OLD
        assert statuses(asker, asks * 3) == [503] * OLD * 3
        wait_until(lambda: codes(gate) == {"cells_differ"})
        (first, *_) = gate.readiness().problems
        assert f"--cells is {OLD}" in first.problem
        assert f"agreed on {new}" in first.problem
        renewed = StoreUrls(stores.records, stores.budgets, new, stores.wait_ms)
        with gate_of(renewed, secrets) as (_, another):
            assert statuses(another, asks) == [200] * OLD
        assert statuses(asker, asks) == [503] * OLD


@pytest.mark.parametrize("follows", [True, False], ids=["with the feed", "without the feed"])
def test_a_gate_of_one_store_for_all_notices_too(
    redis_url: str, another_redis_url: str, secrets: Secrets, *, follows: bool
) -> None:
    """Budgets move to a store of their own, in four cells; who still counts them beside the records stops."""
    one, two = StoreUrls(redis_url, redis_url), StoreUrls(redis_url, another_redis_url, OLD)
    asks = calls_of_every_cell(Catalog(redis_url, secrets), 1)
    with gate_of(one, secrets, follows=follows) as (gate, asker):
        assert statuses(asker, asks) == [200]
        change(two, OLD)
        assert statuses(asker, asks * 5) == [503] * 5
        wait_until(lambda: codes(gate) == {"cells_differ"})


def test_the_bounded_mode_is_no_way_around(redis_url: str, another_redis_url: str, secrets: Secrets) -> None:
    """Another number is not an outage: nobody goes on by himself."""
    stores = StoreUrls(redis_url, another_redis_url, OLD)
    asks = calls_of_every_cell(Catalog(redis_url, secrets, stores), OLD)
    with gate_of(stores, secrets, bounded=BoundedPolicy()) as (gate, asker):
        assert statuses(asker, asks) == [200] * OLD
        wait_until(lambda: gate._bounded is not None and gate._bounded.heartbeat.sharers is not None)
        change(stores, 2)
        assert statuses(asker, asks * 5) == [503] * OLD * 5
        wait_until(lambda: codes(gate) == {"cells_differ"})
        assert statuses(asker, asks * 5) == [503] * OLD * 5


def test_the_first_start_writes_the_number_and_another_is_refused(stores: StoreUrls) -> None:
    """Into the records' store and every cell; whoever comes with another one is told both, and how it is changed."""
    agree(stores, OLD)
    agree(stores, OLD)

    async def read(clients: cells.Stores) -> set[bytes]:
        records, budgets = clients
        return {await records.get(names.cells("0"))} | {await budgets.get(names.cells(str(n))) for n in range(OLD)}

    assert with_clients(stores, read) == {str(OLD).encode()}
    for other in (1, 3, 8):
        with pytest.raises(
            CellsDifferError, match=rf"--cells is {other}, .*agreed on {OLD}.*'tollkeeper cells set {other}'"
        ):
            agree(stores, other)
    assert with_clients(stores, read) == {str(OLD).encode()}


def test_nothing_is_written_under_another_number(redis_url: str, another_redis_url: str, secrets: Secrets) -> None:
    """An admin that ran before the change cannot revoke in cells that it does not know of: it is told so."""
    stores = StoreUrls(redis_url, another_redis_url, OLD)
    catalog = Catalog(redis_url, secrets, stores)
    catalog.tenant()
    change(stores, 2)
    with redis.Redis.from_url(redis_url) as client:
        before = client.get(names.epoch("0"))
        with pytest.raises(StoreUnavailable, match=f"--cells is {OLD}, .*agreed on 2"):
            catalog.tenant("tenant-b")
        assert client.get(names.epoch("0")) == before
        assert not client.exists("tk:rec:tenant:tenant-b")


def test_a_change_that_was_broken_off_is_done_again(
    redis_url: str, another_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half done it lets nobody start with the old number or the new one; done again it is whole."""
    stores = StoreUrls(redis_url, another_redis_url, OLD)
    agree(stores, OLD)
    tell, told = cells._tell, []

    async def broken(*arguments: Any) -> None:
        if told:
            raise redis.ConnectionError("broken off")
        told.append(arguments)
        await tell(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "_tell", broken)
        with pytest.raises(redis.ConnectionError):
            change(stores, 2)
    for number in (OLD, 2):
        with pytest.raises(CellsDifferError):
            agree(stores, number)
    change(stores, 2)
    agree(stores, 2)
    with redis.Redis.from_url(another_redis_url) as client:
        assert {client.get(names.cells(str(cell))) for cell in range(OLD)} == {b"2"}


def test_an_emptied_budgets_store_learns_the_number_again(stores: StoreUrls) -> None:
    """From whoever tells it that all may have changed."""
    agree(stores, OLD)

    async def lose(clients: cells.Stores) -> list[bytes | None]:
        budgets = clients[1]
        keys = [names.cells(str(cell)) for cell in range(OLD)]
        for key in keys:
            await budgets.delete(key)
        await Announcer(budgets, OLD).announce_all((), 3)
        return [await budgets.get(key) for key in keys]

    assert with_clients(stores, lose) == [str(OLD).encode()] * OLD


def test_a_cell_itself_says_the_number(redis_url: str, another_redis_url: str, secrets: Secrets) -> None:
    """Where the records' store says nothing yet, the cell's own number keeps a gate from proving it."""
    stores = StoreUrls(redis_url, another_redis_url, OLD)
    asks = calls_of_every_cell(Catalog(redis_url, secrets, stores), OLD)
    with gate_of(stores, secrets) as (gate, asker):
        assert statuses(asker, asks) == [200] * OLD
        with redis.Redis.from_url(another_redis_url) as budgets:
            budgets.set(names.cells("2"), 7)
            budgets.execute_command(*announce(2, ()))
        assert status(asker.ask(asks[2])) == 503
        wait_until(lambda: codes(gate) == {"cells_differ"})
