"""The policy ``bounded`` with records and budgets apart: each store away alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from boundedbench import Running, bounded_gate, settle
from faultproxy import FaultProxy, fault_proxy
from gatebench import Catalog, question, wait_until

from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Limits, PublicationRecord
from gate.bounded import BoundedPolicy
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckRequest

CELLS = 4


@pytest.fixture
def records_proxy(redis_url: str) -> Iterator[FaultProxy]:
    """The gate's way to the records."""
    with fault_proxy(redis_url, late_s=1) as proxy:
        yield proxy
        proxy.heal()


@pytest.fixture
def budgets_proxy(another_redis_url: str) -> Iterator[FaultProxy]:
    """The gate's way to the budgets."""
    with fault_proxy(another_redis_url, late_s=1) as proxy:
        yield proxy
        proxy.heal()


@pytest.fixture
def catalog(redis_url: str, another_redis_url: str, secrets: Secrets) -> Catalog:
    """A writer that reaches both stores."""
    return Catalog(redis_url, secrets, StoreUrls(redis_url, another_redis_url, CELLS))


@pytest.fixture
def running(records_proxy: FaultProxy, budgets_proxy: FaultProxy, secrets: Secrets) -> Iterator[Running]:
    """A gate under bounded that is ready."""
    urls = StoreUrls(records_proxy.url, budgets_proxy.url, CELLS)
    with bounded_gate(urls, secrets, BoundedPolicy()) as running:
        settle(running)
        yield running


def a_known_key(catalog: Catalog, running: Running) -> tuple[PublicationRecord, KeyRecord, CheckRequest]:
    """A key of a publication of four calls an hour, both in the cache; one call is counted."""
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_hour=4))
    key, text = catalog.key(publication)
    ask = question(key=text, publication=publication)
    assert running.ask(ask) == 200
    return publication, key, ask


def counted(store: redis.Redis) -> int:
    """Calls that the budgets store has counted."""
    return sum(int(store.hget(name, "total") or 0) for name in store.scan_iter("tk:usage:*:p:*") if is_total(name))


def is_total(name: bytes) -> bool:
    """Whether a key holds totals rather than the past."""
    return name.count(b":") == 4


def test_without_the_budgets_store_known_calls_go_on_here(
    catalog: Catalog, running: Running, budgets_proxy: FaultProxy
) -> None:
    """Under this gate's share; and exactly again when the store is back."""
    _, _, ask = a_known_key(catalog, running)
    budgets_proxy.hang()
    assert [running.ask(ask) for _ in range(5)] == [200, 200, 200, 200, 429]
    assert running.sample("tollkeeper_bounded_admissions_total") == 4
    budgets_proxy.flow()
    wait_until(lambda: not running.is_away)
    assert [running.ask(ask) for _ in range(4)] == [200, 200, 200, 429]


def test_without_the_records_store_calls_stay_exact_until_a_change_is_answered(
    catalog: Catalog, running: Running, records_proxy: FaultProxy, another_redis_url: str
) -> None:
    """While the epoch is in force the budgets store counts; once it moved, nobody can say what changed: the share."""
    _, key, ask = a_known_key(catalog, running)
    with redis.Redis.from_url(another_redis_url) as budgets:
        records_proxy.hang()
        assert running.ask(ask) == 200
        wait_until(lambda: counted(budgets) == 2)
        assert running.sample("tollkeeper_bounded_admissions_total") == 0
        catalog.change(key, disabled=True)
        assert running.ask(ask) == 200
        assert counted(budgets) == 2
        assert running.sample("tollkeeper_bounded_admissions_total") == 1
        records_proxy.flow()
        wait_until(lambda: running.ask(ask) == 401)
