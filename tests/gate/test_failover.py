"""Gate and admin find the new master by themselves: the call's link, the feed's link and the admin's client."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from gatebench import Asker, Catalog, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry
from valkeysentinel import Watched, await_that, watched_master

from catalog.keys.secrets import Secrets
from catalog.records import Limits
from gate.assembly import Gate


@pytest.fixture
def watched(valkey_binary: str) -> Iterator[Watched]:
    """A master with a replica and three Sentinels."""
    with watched_master(valkey_binary) as found:
        yield found


@pytest.fixture
def gate(watched: Watched, secrets: Secrets, registry: CollectorRegistry) -> Iterator[Gate]:
    """A gate that knows the Sentinels only."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(f"unix:{folder}/gate.sock", watched.url, secrets, registry)
        gate.start()
        wait_until(lambda: gate.readiness().ready)
        yield gate
        gate.stop()


def test_a_failover_is_survived(watched: Watched, gate: Gate, secrets: Secrets) -> None:
    """503 while there is no master; then calls, changes and the feed go on at the new one, and a revoke is in force."""
    catalog, asker = Catalog(watched.url, secrets), Asker(gate.address)
    catalog.tenant()
    publication = catalog.publication(limits=Limits(per_hour=100))
    key, text = catalog.key(publication)
    ask = question(key=text, publication=publication)
    assert status(asker.ask(ask)) == 200
    with watched.master.client() as master:
        assert master.wait(1, 10_000) == 1
    watched.kill_master()
    assert status(asker.ask(ask)) == 503
    await_that(lambda: status(asker.ask(ask)) == 200)
    dead = catalog.change(key, disabled=True)
    assert status(asker.ask(ask)) == 401
    catalog.change(dead, disabled=False)
    with watched.replica.client() as master:
        wait_until(lambda: gate.cache.epoch.encode() == master.get("tk:epoch:{0}"))  # by the feed: nobody asks
    assert status(asker.ask(ask)) == 200
    asker.close()
