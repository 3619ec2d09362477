"""Records in one store, budgets in another: no answered change is missed, whatever the budgets store loses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gatebench import Asker, Catalog, make_gate, question, status, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from catalog.ids import cell_of, shard_of
from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Kind, Limits, PublicationRecord
from extauth.records.allowances import PER_MINUTE
from gate.assembly import Gate
from gate.links import StoreUrls
from runtime.clock import SystemClock
from runtime.store.link import StoreLink

CELLS = 4


@pytest.fixture(params=[1, CELLS], ids=["one cell", "four cells"])
def stores(request: pytest.FixtureRequest, redis_url: str, another_redis_url: str) -> StoreUrls:
    """Two empty stores."""
    return StoreUrls(redis_url, another_redis_url, request.param)


@pytest.fixture
def catalog(stores: StoreUrls, secrets: Secrets) -> Catalog:
    """A writer that tells the budgets store before it is done, as the admin does."""
    return Catalog(stores.records, secrets, stores)


@pytest.fixture
def budgets(stores: StoreUrls) -> Iterator[redis.Redis]:
    """A plain client of the budgets store."""
    with redis.Redis.from_url(stores.budgets) as client:
        yield client


@contextmanager
def gate_without_feed(stores: StoreUrls, secrets: Secrets) -> Iterator[tuple[Gate, Asker]]:
    """A gate that hears of no change: only the fence protects it."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/gate.sock", stores, secrets, CollectorRegistry())
        gate.start()
        asker = Asker(gate.address)
        try:
            wait_until(lambda: gate.readiness().ready)
            gate._follower.stop(5)
            yield gate, asker
        finally:
            asker.close()
            gate.stop()


@pytest.fixture(autouse=True)
def quick_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links die young here by the dozen; a second's pause after each is another test's matter."""
    monkeypatch.setattr("runtime.store.keeper.LAST_BACKOFF_S", 0.02)


@pytest.fixture
def asker(stores: StoreUrls, secrets: Secrets) -> Iterator[Asker]:
    """A client of a gate whose feed is dead."""
    with gate_without_feed(stores, secrets) as (_, asker):
        yield asker


def two_keys(catalog: Catalog) -> tuple[PublicationRecord, KeyRecord, list[Any]]:
    """A publication, a key of it that will change, and questions with that key and with another."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    key, text = catalog.key(publication)
    _, other = catalog.key(publication)
    return publication, key, [question(key=one, publication=publication) for one in (text, other)]


def statuses(asker: Asker, asks: list[Any]) -> list[int]:
    """The HTTP status of each, asked one after another."""
    return [status(asker.ask(ask)) for ask in asks]


def test_an_answered_revoke_binds_the_next_call(catalog: Catalog, asker: Asker) -> None:
    """With the feed dead, the budgets store's epoch alone brings the gate to the present."""
    _, key, asks = two_keys(catalog)
    assert statuses(asker, asks) == [200, 200]
    catalog.remove(Kind.KEY, key)
    assert statuses(asker, asks) == [401, 200]


def test_bad_calls_are_counted_where_their_tenant_is(
    catalog: Catalog, stores: StoreUrls, asker: Asker, budgets: redis.Redis
) -> None:
    """In the budgets store, in the cell of the key's tenant; and what a change allows is none from its answer on."""
    catalog.tenant()
    publication = catalog.publication()
    key, text = catalog.key()
    ask = question(key=text, publication=publication)
    assert statuses(asker, [ask] * (PER_MINUTE + 1)) == [403] * PER_MINUTE + [429]
    cell = cell_of(shard_of("tenant-a"), stores.cells)
    assert budgets.keys("tk:budget:*") == [f"tk:budget:{{{cell}}}:e:{key.id}".encode()]
    catalog.change(key, publications=(publication.uid,))
    assert status(asker.ask(ask)) == 200


def test_an_emptied_budgets_store_lets_no_revoked_key_in(catalog: Catalog, asker: Asker, budgets: redis.Redis) -> None:
    """Emptied before and after the change: an absent epoch never looks like the absent epoch of before."""
    _, key, asks = two_keys(catalog)
    budgets.flushdb()
    assert statuses(asker, asks) == [200, 200]
    catalog.change(key, disabled=True)
    budgets.flushdb()
    assert statuses(asker, asks) == [401, 200]


def test_a_budgets_store_that_comes_back_older_lets_no_revoked_key_in(
    catalog: Catalog, stores: StoreUrls, asker: Asker, budgets: redis.Redis
) -> None:
    """Back to the very epoch that the gate had proved: its link broke with the store, and so did the proof."""
    _, key, asks = two_keys(catalog)
    assert statuses(asker, asks) == [200, 200]
    kept = {name: budgets.dump(name) for name in budgets.scan_iter()}
    catalog.change(key, disabled=True)
    restore(budgets, kept)
    drop_links(budgets)
    wait_until(lambda: status(asker.ask(asks[1])) == 200)
    assert statuses(asker, asks) == [401, 200]
    assert stores.cells == len([name for name in kept if name.startswith(b"tk:epoch:")])


def restore(client: redis.Redis, kept: dict[bytes, Any]) -> None:
    """Put a store back to what it held."""
    client.flushdb()
    for name, value in kept.items():
        client.restore(name, 0, value)


def drop_links(client: redis.Redis) -> None:
    """Close every connection but our own, as a restart does."""
    client.client_kill_filter(_type="normal", skipme=True)


def test_without_the_records_store_proved_keys_go_on_and_others_are_refused(
    catalog: Catalog, secrets: Secrets, stores: StoreUrls
) -> None:
    """What is cached is exact as long as the budgets store names no change of it; what is not cached gets a 503."""
    publication, key, asks = two_keys(catalog)
    with gate_without_feed(stores, secrets) as (gate, asker):
        assert statuses(asker, asks) == [200, 200]
        _, unknown = catalog.key(publication)
        assert statuses(asker, asks) == [200, 200]
        with records_away(gate):
            assert statuses(asker, asks) == [200, 200]
            assert status(asker.ask(question(key=unknown, publication=publication))) == 503
            catalog.change(key, disabled=True)
            assert statuses(asker, asks) == [503, 200]
        wait_until(lambda: gate.readiness().ready)
        assert statuses(asker, asks) == [401, 200]


@contextmanager
def records_away(gate: Gate) -> Iterator[None]:
    """No link to the records store works while the body runs."""
    keeper = gate._links._records
    make = keeper._make
    wait_until(lambda: keeper._spare.ready)  # no link is on its way
    keeper._make = lambda: StoreLink("unix:///nonexistent/store.sock", SystemClock())
    keeper.discard()
    yield
    keeper._make = make


def test_key_and_model_of_different_cells_never_meet(
    catalog: Catalog, asker: Asker, stores: StoreUrls, budgets: redis.Redis
) -> None:
    """All or nothing holds within a cell: a call over two is refused, and nothing is taken for it."""
    catalog.tenant()
    foreign = next(f"tenant-{n}" for n in range(100) if cell_of_tenant(f"tenant-{n}") != cell_of_tenant("tenant-a"))
    catalog.tenant(foreign)
    publication = catalog.publication(allowed_tenants=("tenant-a", foreign), limits=Limits(per_minute=10))
    _, text = catalog.key(publication, tenant=foreign)
    expected = 200 if stores.cells == 1 else 503
    assert status(asker.ask(question(key=text, publication=publication))) == expected
    assert bool(list(budgets.scan_iter("tk:budget:*"))) is (expected == 200)


def cell_of_tenant(tenant: str) -> int:
    """The cell of what is counted for a tenant."""
    return cell_of(shard_of(tenant), CELLS)


ACTS = st.lists(st.sampled_from(["disable", "enable", "empty", "older", "save", "call"]), min_size=4, max_size=15)


@given(acts=ACTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_history_a_key_works_exactly_while_it_is_enabled(
    acts: list[str], catalog: Catalog, asker: Asker, budgets: redis.Redis
) -> None:
    """Whatever is lost in the budgets store and whenever: a call goes by the key as it was answered last."""
    if not hasattr(catalog, "toggled"):
        _, catalog.toggled, catalog.asks = two_keys(catalog)  # type: ignore[attr-defined]
    saved: dict[bytes, Any] = {}
    for act in acts:
        if act in {"disable", "enable"}:
            catalog.toggled = catalog.change(catalog.toggled, disabled=act == "disable")  # type: ignore[attr-defined]
        elif act == "empty":
            budgets.flushdb()
        elif act == "save":
            saved = {name: budgets.dump(name) for name in budgets.scan_iter()}
        elif act == "older":
            restore(budgets, saved)
            drop_links(budgets)
            wait_until(lambda: status(asker.ask(catalog.asks[1])) == 200)  # type: ignore[attr-defined]
        else:
            expected = [401 if catalog.toggled.disabled else 200, 200]  # type: ignore[attr-defined]
            assert statuses(asker, catalog.asks) == expected  # type: ignore[attr-defined]
