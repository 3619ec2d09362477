"""A model's servers on the real Envoy Gateway: moved, by weight, and what they want from the operator's Secret."""

from __future__ import annotations

import base64
from collections import Counter

import pytest
import yaml
from gatewaystack import LIVE_S, NAMESPACE, Machine
from upmachine import until

from tests.e2e.proxy import Reply, Upstream

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(400)]

TEAM, MODEL = "servers-team", "moved"
SECRET, HEADER = "moved-credential", "authorization"
PATH = f"/api/models/{MODEL}?tenantId={TEAM}"


def lay_secret(gateway: Machine, value: str) -> None:
    """As the operator does."""
    file = gateway.gateway.manifests / "credential.yaml"
    data = {"credential": base64.b64encode(value.encode()).decode()}
    metadata = {"name": SECRET, "namespace": NAMESPACE}
    draft = file.with_name(f".{file.name}")
    draft.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}))
    draft.replace(file)


def test_servers_and_what_they_want(gateway: Machine) -> None:
    """Each gets the Secret's value in place of what the caller sent, and its own name; a new one only if it is said."""
    with Upstream("old") as old, Upstream("new") as new:
        lay_secret(gateway, "Bearer one")
        gateway.operator.ask("POST", "/api/tenants", {"tenantId": TEAM})
        asked = {"name": MODEL, "tenantId": TEAM, "url": old.url, "type": "traditional"}
        gateway.operator.must("POST", "/api/models", asked | {"upstreamAuth": {"header": HEADER, "secret": SECRET}})
        made = gateway.publish(TEAM, MODEL, old.url)

        def call() -> Reply:
            key = f"x-api-key: {made['apiKey']}"
            return gateway.get(f"{made['externalPath']}/x", key, f"{HEADER}: mine", host=made["publicHostname"])

        def got() -> list[str]:
            reply = call()
            return reply.upstream_headers(HEADER) if reply.status == 200 else [str(reply.status)]

        assert until(lambda: got() == ["Bearer one"], LIVE_S, every_s=0.2), (got(), gateway.gateway.told())
        assert "Bearer one" not in gateway.gateway.envoy("/config_dump?include_eds")
        drained = gateway.gateway.stat("listener_manager.listener_modified$")

        lay_secret(gateway, "Bearer two")
        assert until(lambda: got() == ["Bearer two"], LIVE_S, every_s=0.2), got()

        several = [{"url": old.url, "weight": 3}, {"url": new.url}]
        gateway.operator.must("PATCH", PATH, {"servers": several, "upstreamAuth": {"secret": SECRET}})
        gateway.await_live(TEAM, MODEL)
        assert until(lambda: {call().upstream for _ in range(20)} == {"old", "new"}, LIVE_S)
        replies = [call() for _ in range(100)]
        found = Counter(reply.upstream for reply in replies)
        assert set(found) == {"old", "new"}
        assert 50 <= found["old"] <= 95, found
        assert all(reply.upstream_headers(HEADER) == ["Bearer two"] for reply in replies)
        assert gateway.gateway.stat("listener_manager.listener_modified$") == drained

        gateway.operator.must("PATCH", PATH, {"url": new.url})
        assert until(lambda: {call().upstream for _ in range(5)} == {"new"}, LIVE_S)
        assert until(lambda: got() == ["Bearer two"], LIVE_S), "it had it before"
        gateway.operator.must("PATCH", PATH, {"url": old.url})
        assert until(lambda: call().upstream == "old" and got() == [], LIVE_S, every_s=0.2), got()
        gateway.unpublish(TEAM, MODEL)
