"""Machines wired otherwise: the gate asked by mutual TLS, and an Envoy Gateway that forbids EnvoyPatchPolicy."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from authority import Authority
from gatewayground import OPENAI, Ground
from gatewaystack import GATE, LIVE_S, Machine, Wiring
from upmachine import until

from catalog.records import Limits, MissingUsage, TokenPolicy
from tests.e2e.metered import MeteredModel, RawServer
from tests.e2e.proxy import HOST, PATIENCE_S, Upstream

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(300)]

by_mutual_tls = pytest.mark.parametrize("gateway", [Wiring(mutual_tls=True)], indirect=True, ids=["mutual-tls"])
without_patches = pytest.mark.parametrize(
    "gateway", [Wiring(patches=False, writes_patches=False)], indirect=True, ids=["no-patches"]
)
patches_in_vain = pytest.mark.parametrize("gateway", [Wiring(patches=False)], indirect=True, ids=["patches-in-vain"])

CONTEXT = 100
LIMIT = 5
TENANT = "tenant-a"


@by_mutual_tls
def test_calls_are_checked_and_settled(ground: Ground) -> None:
    """Both questions go to the same gate over TCP: whether a call may pass, and how it ended."""
    machine, rig = ground.machine, ground.metered()
    assert machine.get("/models/iris").status == 401
    assert machine.get("/models/iris", ground.with_key).upstream == "iris"
    assert machine.post("/v1/chat/completions", b'{"model": "echo"}', ground.with_key).upstream == "echo"
    before = rig.settled()
    assert rig.call("sse").status == 200
    assert rig.settled() - before == 12


def heard(ground: Ground, shows: Authority | None) -> bytes:
    """What the gate says to somebody who begins to speak HTTP/2 with a certificate of this authority, or with none."""
    host, _, port = ground.machine.parts.targets[0].rpartition(":")
    context = ssl.create_default_context(cafile=str(ground.machine.authority.ca))
    context.set_alpn_protocols(["h2"])
    if shows:
        context.load_cert_chain(*shows.give("somebody"))
    with (
        suppress(ssl.SSLError, ConnectionError),
        socket.create_connection((host, int(port)), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=GATE) as wrapped,
    ):
        wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        return wrapped.recv(1)
    return b""


@by_mutual_tls
def test_the_gate_hears_nobody_else(ground: Ground) -> None:
    """Without a certificate of our authority no word is read."""
    assert heard(ground, ground.machine.authority)
    assert not heard(ground, None)
    assert not heard(ground, Authority(ground.machine.folder, "foreign"))


@by_mutual_tls
def test_without_the_gate_it_is_closed(ground: Ground) -> None:
    """503, as behind a socket, and it heals."""
    before = ground.reached()
    ground.machine.gate.kill()
    assert ground.machine.get("/models/iris", ground.with_key).status == 503
    assert ground.reached() == before
    ground.machine.gate.start()
    assert until(lambda: ground.machine.get("/models/iris", ground.with_key).status == 200, LIVE_S)


@pytest.fixture(scope="module")
def unmetered(gateway: Machine) -> Iterator[dict[str, MeteredModel]]:
    """Openai publications whose tokens fall to ``missingUsage``, by its name; their calls are bounded too."""
    limits = Limits(per_hour=LIMIT, tokens_per_hour=10_000)
    gateway.catalog.tenant(TENANT)
    with Upstream("model") as server, RawServer() as raw:
        made = {}
        for policy in (MissingUsage.RESERVATION, MissingUsage.FREE):
            tokens = TokenPolicy(context_tokens=CONTEXT, missing_usage=policy, reservation_timeout_s=2)
            facts: dict[str, Any] = {"url": server.url, "host": HOST, "limits": limits, "tokens": tokens, **OPENAI}
            one = gateway.catalog.publication(TENANT, policy.value, path=f"/v1/models/{policy.value}", **facts)
            made[policy.value] = MeteredModel(gateway, raw, gateway.store, one, gateway.catalog.key(one)[1])
        gateway.await_all_live()
        yield made


def _call(rig: MeteredModel) -> int:
    body = b'{"model": "any", "max_tokens": 5}'
    return rig.envoy.post(f"{rig.publication.path}/chat/completions", body, f"x-api-key: {rig.key}").status


@without_patches
def test_without_patches_calls_are_counted_and_tokens_fall_to_the_policy(unmetered: dict[str, MeteredModel]) -> None:
    """20 calls at once on a budget of 5: exactly 5 pass. Each holds all it can cost, and is charged by the policy."""
    held, free = unmetered["reservation"], unmetered["free"]
    for rig in (held, free):
        with ThreadPoolExecutor(20) as pool:
            statuses = Counter(pool.map(_call, [rig] * 20))
        assert statuses == {200: LIMIT, 429: 20 - LIMIT}
    assert held.settled() == LIMIT * CONTEXT
    assert free.settled() == 0


@without_patches
def test_without_patches_a_body_decides_nothing(gateway: Machine, unmetered: dict[str, MeteredModel]) -> None:
    """Nobody reads it: only a publication's own path leads to its model, and other calls are refused."""
    key = f"x-api-key: {unmetered['free'].key}"
    answer = gateway.post("/v1/chat/completions", b'{"model": "free"}', key)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")


@patches_in_vain
def test_patches_that_are_not_in_force_are_told(gateway: Machine) -> None:
    """Envoy Gateway does not say so in a folder. No call of an openai model would pass; its publication says why."""
    gateway.publish(TENANT, "iris", gateway.servers["kserve"])
    gateway.publish(TENANT, "chat", gateway.servers["openai"], live=False)
    assert until(lambda: gateway.shown(TENANT, "chat")["status"] == "failed", LIVE_S, every_s=0.2), gateway.admin.told
    assert "the gateway reads no bodies" in gateway.shown(TENANT, "chat")["statusReason"]
    assert gateway.shown(TENANT, "iris")["status"] == "live"
