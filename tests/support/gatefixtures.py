"""Fixtures of every test of a gate: a catalog on the real Valkey, a gate in this process, and a client of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gatebench import WIRES, Asker, Catalog, Wire, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets, create_secrets
from gate.assembly import Gate


@pytest.fixture(scope="session")
def secrets() -> Secrets:
    """Peppers and MAC keys as the product makes them."""
    with tempfile.TemporaryDirectory() as folder:
        return create_secrets(Path(folder) / "secrets.json")


@pytest.fixture
def catalog(redis_url: str, secrets: Secrets) -> Catalog:
    """An empty catalog."""
    return Catalog(redis_url, secrets)


@pytest.fixture
def registry() -> CollectorRegistry:
    """The gate's instruments."""
    return CollectorRegistry()


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Each transport on each kind of address in turn: a gate behaves the same on all of them."""
    return WIRES[request.param]


@pytest.fixture
def gate(redis_url: str, secrets: Secrets, registry: CollectorRegistry, wire: Wire) -> Iterator[Gate]:
    """A ready gate."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(wire.target(folder), redis_url, secrets, registry, wire=wire)
        gate.start()
        try:
            wait_until(lambda: gate.readiness().ready)
            yield gate
        finally:
            gate.stop()


@pytest.fixture
def asker(gate: Gate) -> Iterator[Asker]:
    """A client of the gate."""
    asker = Asker(gate.address)
    yield asker
    asker.close()
