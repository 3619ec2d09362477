"""Machines wired otherwise: the gate asked and told by mutual TLS, and answers metered by a policy."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import pytest
from authority import Authority
from gatewayground import Ground
from gatewaystack import GATE, LIVE_S, Wiring, wired
from upmachine import until

from tests.e2e.proxy import PATIENCE_S
from tests.e2e.test_endings import TWELVE

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(300)]

by_mutual_tls = wired(Wiring(mutual_tls=True), "mutual-tls")
by_policy = wired(Wiring(patches=False, meter="policy"), "by-policy")


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


@by_policy
def test_a_policys_script_reads_usage_in_every_form(ground: Ground) -> None:
    """As the patch's: Envoy Gateway has found no fault with it, and it stands on the routes of openai models."""
    rig = ground.metered()
    before = rig.settled()
    for name in TWELVE:
        assert rig.call(name).status == 200, name
    assert rig.settled() - before == 12 * len(TWELVE)
    filters = ground.machine.gateway.envoy("/config_dump?resource=dynamic_listeners")
    assert "envoy.filters.http.lua//envoy-gateway-system/tollkeeper-meter/lua/0" in filters
