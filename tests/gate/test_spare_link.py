"""One late answer refuses only the calls that waited for it: those behind it are decided on the spare link."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from faultproxy import Act, fault_proxy
from gatebench import Asker, Catalog, is_take, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry
from valkeycluster import Cluster
from valkeys import running_valkey

from catalog.keys.secrets import Secrets
from catalog.records import Limits
from gate.assembly import Gate
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckResponse
from runtime.clock import SystemClock
from runtime.grpc.front import QueueLimits
from runtime.store.link import StoreLink

SLACK = 10
"""Times are those of the product, so many times longer: a busy machine must not look like a slow store."""
WAIT_MS = 50 * SLACK
STALL_S = 0.06 * SLACK
LIMITS = QueueLimits(answer_ms=WAIT_MS, wait_ms=2_000)
CALLS_A_SECOND = 200


@contextmanager
def running_gate(stores: StoreUrls, secrets: Secrets, registry: CollectorRegistry) -> Iterator[tuple[Gate, Asker]]:
    """A gate whose links have spares, and a client."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/gate.sock", stores, secrets, registry, LIMITS)
        gate.start()
        asker = Asker(gate.address)
        try:
            wait_until(lambda: has_spares(gate))
            yield gate, asker
        finally:
            asker.close()
            gate.stop()


def has_spares(gate: Gate) -> bool:
    """Whether every store has its link and another one ready."""
    return gate.readiness().ready and all(keeper._spare.whole for keeper in gate._links._keepers.values())


def without_new_links(gate: Gate) -> None:
    """Have nothing follow a broken link but its spare."""
    for keeper in gate._links._keepers.values():
        keeper._make = lambda: StoreLink("unix:///nonexistent/store.sock", SystemClock())


@pytest.mark.parametrize("act", [Act.LATE_REPLY, Act.LATE_COMMAND, Act.DROP_REPLY, Act.CUT], ids=lambda act: act.value)
def test_the_batch_behind_a_late_answer_is_decided(
    redis_url: str, catalog: Catalog, secrets: Secrets, registry: CollectorRegistry, act: Act
) -> None:
    """One connection hangs: its batch is refused, the next one goes by the spare, and the late answer is nobody's."""
    _, ask = catalog.callable_publication(Limits(per_hour=3))
    with (
        fault_proxy(redis_url, late_s=STALL_S) as proxy,
        running_gate(StoreUrls(proxy.url, proxy.url, wait_ms=WAIT_MS), secrets, registry) as (gate, asker),
    ):
        assert status(asker.ask(ask)) == 200
        without_new_links(gate)
        hit = proxy.once(b"EVALSHA", act, is_take)
        assert status(asker.ask(ask)) == 503
        assert hit.is_set()
        wait_until(lambda: gate.readiness().ready)  # by the spare: no other link can be made
        taken = act is not Act.LATE_COMMAND  # the script itself comes too late there
        assert [status(asker.ask(ask)) for _ in range(3)] == [200, 429 if taken else 200, 429]


def test_only_calls_in_flight_in_a_short_stall_are_refused(
    valkey_binary: str, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """The store stalls once, longer than a call waits for it, under 200 calls a second: what comes later is decided."""
    with running_valkey(valkey_binary, "--enable-debug-command", "yes") as valkey, valkey.client() as client:
        stall = threading.Thread(target=client.execute_command, args=("DEBUG", "SLEEP", str(STALL_S)))
        _, ask = Catalog(valkey.url, secrets).callable_publication(Limits(per_minute=10**6))
        stores = StoreUrls(valkey.url, valkey.url, wait_ms=WAIT_MS)
        with running_gate(stores, secrets, registry) as (_, asker):
            assert status(asker.ask(ask)) == 200
            answers = called(asker, ask.SerializeToString(), stall)
            stall.join()
    refused = [sent_s for sent_s, answer in answers if answer == 503]
    assert refused
    assert {answer for _, answer in answers} == {200, 503}
    assert max(refused) - min(refused) <= STALL_S
    assert len(refused) < CALLS_A_SECOND * STALL_S


def called(asker: Asker, raw: bytes, stall: threading.Thread) -> list[tuple[float, int]]:
    """Call for two seconds, with a stall begun on the way; when each call was sent, and its answer."""
    calls: list[tuple[float, Any]] = []
    begun_s, pause = time.monotonic(), threading.Event()
    for number in range(2 * CALLS_A_SECOND):
        pause.wait(max(0.0, begun_s + number / CALLS_A_SECOND - time.monotonic()))
        if number == CALLS_A_SECOND // 2:
            stall.start()
        calls.append((time.monotonic(), asker._check.future(raw, timeout=10)))
    return [(sent_s, status(CheckResponse.FromString(call.result()))) for sent_s, call in calls]


def test_a_store_that_came_back_older_proves_nothing_by_the_spare(
    redis_url: str, another_redis_url: str, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """Two stores: the spare leads to a budgets store with the very epoch that was proved on the link that broke."""
    stores = StoreUrls(redis_url, another_redis_url, wait_ms=WAIT_MS)
    catalog = Catalog(stores.records, secrets, stores)
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    key, text = catalog.key(publication)
    _, other = catalog.key(publication)
    asks = [question(key=one, publication=publication) for one in (text, other)]
    with (
        running_gate(stores, secrets, registry) as (gate, asker),
        redis.Redis.from_url(stores.budgets) as budgets,
    ):
        gate._follower.stop(5)  # only the fence protects it
        assert [status(asker.ask(ask)) for ask in asks] == [200, 200]
        kept = {name: budgets.dump(name) for name in budgets.scan_iter()}
        without_new_links(gate)
        link = gate._links.current()
        catalog.change(key, disabled=True)
        budgets.flushdb()
        for name, value in kept.items():
            budgets.restore(name, 0, value)  # type: ignore[arg-type]
        assert link is not None
        link.close()
        assert [status(asker.ask(ask)) for ask in asks] == [401, 200]
        assert gate._links.current() is not link


def test_a_hung_server_of_a_cluster_costs_the_calls_that_waited(
    redis_url: str, valkey_cluster: Cluster, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """The Cluster's link is followed by its spare as soon as one server is missing from it."""
    valkey_cluster.flush()
    stores = StoreUrls(redis_url, valkey_cluster.url, 4, wait_ms=WAIT_MS)
    catalog = Catalog(stores.records, secrets, stores)
    _, ask = catalog.callable_publication(Limits(per_hour=1_000))
    with running_gate(stores, secrets, registry) as (gate, asker):
        wait_until(lambda: status(asker.ask(ask)) == 200)
        without_new_links(gate)
        link = gate._links.current()
        assert link is not None
        next(iter(link._view.links.values())).close()  # type: ignore[union-attr]  # as after a late answer
        assert [status(asker.ask(ask)) for _ in range(20)] == [200] * 20
        assert gate._links.current() is not link
    valkey_cluster.flush()


def test_a_records_store_that_came_back_older_is_not_believed_by_the_spare(
    redis_url: str, another_redis_url: str, secrets: Secrets, registry: CollectorRegistry
) -> None:
    """The spare of the records was proved before its store lost a change that the budgets store was told of."""
    stores = StoreUrls(redis_url, another_redis_url, wait_ms=WAIT_MS)
    catalog = Catalog(stores.records, secrets, stores)
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_minute=10**6))
    (key, text), (_, unread) = catalog.key(publication), catalog.key(publication)
    asks = [question(key=one, publication=publication) for one in (text, unread)]
    with (
        running_gate(stores, secrets, registry) as (gate, asker),
        redis.Redis.from_url(stores.records) as records,
    ):
        gate._follower.stop(5)
        assert status(asker.ask(asks[0])) == 200
        kept = {name: records.dump(name) for name in records.scan_iter()}
        catalog.change(key, disabled=True)
        assert status(asker.ask(asks[0])) == 401
        without_new_links(gate)
        records.flushdb()
        for name, value in kept.items():
            records.restore(name, 0, value)  # type: ignore[arg-type]
        keeper = gate._links._records
        assert keeper is not None
        assert keeper._link is not None
        keeper._link.close()
        statuses = {status(asker.ask(ask)) for ask in (asks[1], asks[0], asks[1], asks[0])}
        assert 200 not in statuses
