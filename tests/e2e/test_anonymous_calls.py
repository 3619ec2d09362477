"""Calls without a key through a real Envoy: the address that is counted is the one Envoy trusts, never the caller's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from gatebench import Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from tests.e2e.proxy import HOST, Envoy, Reply, Upstream, head, options_for, short_folder

PER_ADDRESS = 3


@pytest.fixture(params=[0, 1], ids=["nobody trusted", "one hop trusted"])
def envoy(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Envoy]:
    """Envoy before a real gate, with a publication that asks for no key."""
    with short_folder() as folder, ExitStack() as stack:
        secrets = create_secrets(folder / "secrets.json")
        upstream = stack.enter_context(Upstream("model"))
        catalog = Catalog(redis_url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        publication = catalog.publication(require_api_key=False, anonymous_per_minute=PER_ADDRESS)
        gate = make_gate(f"unix:{folder}/gate.sock", redis_url, secrets, CollectorRegistry())
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, gate.address, trusted_hops=request.param))
        envoy.publish([publication])
        yield stack.enter_context(envoy)


def test_an_address_cannot_be_claimed(envoy: Envoy) -> None:
    """Whatever a caller writes into its headers, it shares the budget of where it comes from."""
    statuses = []
    for number in range(PER_ADDRESS + 1):
        claimed = f"198.51.100.{number}"
        # With one hop trusted the last address is the trusted hop's word for who called; those before are claims.
        told = f"{claimed}, 192.0.2.7" if envoy.options.trusted_hops else claimed
        reply = envoy.get(
            "/models/my-model/predict", f"x-forwarded-for: {told}", f"x-envoy-external-address: {claimed}"
        )
        statuses.append(reply.status)
    assert statuses == [200] * PER_ADDRESS + [429]
    assert reply.json["error"]["level"] == "address"


def test_addresses_are_told_apart(envoy: Envoy) -> None:
    """Who comes from elsewhere has a budget of its own: by the connection, or by the trusted hop's word."""
    statuses = []
    for number in range(PER_ADDRESS * 2):
        other = number % 2
        hop = (f"x-forwarded-for: 192.0.2.{other}",) if envoy.options.trusted_hops else ()
        request = head("GET", "/models/my-model/predict", f"host: {HOST}", *hop)
        source = ("127.0.0.1" if envoy.options.trusted_hops else f"127.0.0.{1 + other}", 0)
        with socket.create_connection(("127.0.0.1", envoy.ports["http"]), 20, source_address=source) as connection:
            connection.sendall(request)
            statuses.append(Reply.read(connection).status)
    assert statuses == [200] * PER_ADDRESS * 2
    assert envoy.get("/models/my-model/predict", "x-forwarded-for: 192.0.2.1").status == 429


def test_a_call_without_a_key_tells_the_model_nothing_of_callers(envoy: Envoy) -> None:
    """Claimed tenant and key are taken off, and a presented bad key is refused all the same."""
    reply = envoy.get("/models/my-model/predict", "x-tenant-id: tenant-a", "x-key-id: boss")
    assert reply.status == 200
    assert [reply.upstream_headers(name) for name in ("x-tenant-id", "x-key-id")] == [[], []]
    assert envoy.get("/models/my-model/predict", "x-api-key: tk_wrong").status == 401
