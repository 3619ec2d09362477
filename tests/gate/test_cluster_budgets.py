"""A gate whose budgets are kept by a real Valkey Cluster: 3 servers, 64 cells, the records in a store of their own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator

import pytest
from gatebench import Asker, Catalog, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry
from valkeycluster import Cluster

from catalog.ids import cell_of, shard_of
from catalog.keys.secrets import Secrets
from catalog.records import Kind, Limits
from gate.links import StoreUrls
from ratelimit.usage.reading import read_usage
from runtime.store.clients import client_of

CELLS = 64
TENANTS = 12


@pytest.fixture
def stores(redis_url: str, valkey_cluster: Cluster) -> Iterator[StoreUrls]:
    """An empty records store and an empty Cluster."""
    valkey_cluster.flush()
    yield StoreUrls(redis_url, valkey_cluster.url, CELLS)
    valkey_cluster.flush()


@pytest.fixture
def catalog(stores: StoreUrls, secrets: Secrets) -> Catalog:
    """A writer that tells every cell of the Cluster."""
    return Catalog(stores.records, secrets, stores)


@pytest.fixture
def asker(stores: StoreUrls, secrets: Secrets) -> Iterator[Asker]:
    """A client of a gate whose feed is dead: the fence alone protects it."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/gate.sock", stores, secrets, CollectorRegistry())
        gate.start()
        asker = Asker(gate.address)
        try:
            wait_until(lambda: gate.readiness().ready)
            gate._follower.stop(5)
            yield asker
        finally:
            asker.close()
            gate.stop()


def test_tenants_of_many_cells_are_held_to_their_limits_at_once(catalog: Catalog, asker: Asker) -> None:
    """Calls of all tenants come in the same batches; each passes as often as its own limit says."""
    asks = []
    for number in range(TENANTS):
        tenant = f"tenant-{number}"
        catalog.tenant(tenant)
        publication = catalog.publication(tenant=tenant, allowed_tenants=(tenant,), limits=Limits(per_hour=number + 1))
        _, text = catalog.key(publication, tenant=tenant)
        asks.append(question(key=text, publication=publication))
    assert len({cell_of(shard_of(f"tenant-{n}"), CELLS) for n in range(TENANTS)}) > TENANTS / 2
    answers = [status(answer) for answer in asker.ask_many(asks * (TENANTS + 1), timeout_s=30)]
    admitted = [answers[number::TENANTS].count(200) for number in range(TENANTS)]
    assert admitted == [number + 1 for number in range(TENANTS)]
    assert set(answers) == {200, 429}


def test_an_answered_change_binds_the_next_call(catalog: Catalog, asker: Asker, valkey_cluster: Cluster) -> None:
    """Also when every server of the Cluster has lost what it had."""
    catalog.tenant()
    publication = catalog.publication()
    key, text = catalog.key(publication)
    _, other = catalog.key(publication)
    asks = [question(key=one, publication=publication) for one in (text, other)]
    assert [status(asker.ask(ask)) for ask in asks] == [200, 200]
    key = catalog.change(key, disabled=True)
    assert [status(asker.ask(ask)) for ask in asks] == [401, 200]
    key = catalog.change(key, disabled=False)
    assert [status(asker.ask(ask)) for ask in asks] == [200, 200]
    catalog.remove(Kind.KEY, key)
    valkey_cluster.flush()
    assert [status(asker.ask(ask)) for ask in asks] == [401, 200]


def test_the_admins_client_reads_usage(catalog: Catalog, asker: Asker, valkey_cluster: Cluster) -> None:
    """The counters of a publication are in its cell, whichever server has it."""
    _, ask = catalog.callable_publication()
    uid = ask.attributes.route_metadata_context.filter_metadata["tollkeeper"].fields["publication"].string_value
    assert status(asker.ask(ask)) == 200

    async def read() -> int:
        async with client_of(valkey_cluster.url, connect_s=3, answer_s=3) as client:
            return (await read_usage(client, str(cell_of(uid, CELLS)), f"p:{uid}", now_ms=0)).total

    wait_until(lambda: asyncio.run(read()) == 1)
