"""A model's servers on the real Envoy Gateway: moved, by weight, and what they want from the operator's Secret."""

from __future__ import annotations

import asyncio
import base64
import json
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
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}


class Locked(Upstream):
    """A model server that lists nothing to who has no key, as the admin that asks it."""

    async def _answer(self, writer: asyncio.StreamWriter, head: str, length: int) -> None:
        if not head.startswith("GET "):
            await super()._answer(writer, head, length)
            return
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()


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
        assert gateway.gateway.stat("listener_manager.listener_modified$") == drained
        gateway.unpublish(TEAM, MODEL)
        gateway.operator.must("DELETE", PATH)


def test_a_model_that_check_chooses_gets_what_it_wants(gateway: Machine) -> None:
    """An openai call leaves by another route than it came by: by its path and by its host, with the Secret's value."""
    with Locked("chat") as chat, Locked("other") as other, Upstream("plain") as plain:
        lay_secret(gateway, "Bearer three")
        gateway.operator.ask("POST", "/api/tenants", {"tenantId": TEAM})
        first = {"name": "plain", "tenantId": TEAM, "url": plain.url, "type": "traditional"}
        gateway.operator.must("POST", "/api/models", first)
        gateway.publish(TEAM, "plain", plain.url)
        asked = {"name": MODEL, "tenantId": TEAM, "url": chat.url, "type": "openai"}
        gateway.operator.must("POST", "/api/models", asked | {"upstreamAuth": {"header": HEADER, "secret": SECRET}})
        drained = gateway.gateway.stat("listener_manager.listener_modified$")
        made = gateway.publish(TEAM, MODEL, chat.url)
        sent = gateway.operator.ask("PATCH", PATH, {"upstreamAuth": {"value": "Bearer four"}})
        assert (sent.status_code, sent.json()["errors"][0]["field"]) == (400, "upstreamAuth.value"), sent.text

        def got(path: str) -> tuple[str, list[str]]:
            body = json.dumps(CHAT).encode()
            headers = (f"x-api-key: {made['apiKey']}", f"{HEADER}: mine", "content-type: application/json")
            reply = gateway.post(path, body, *headers, host=made["publicHostname"])
            return (reply.upstream, reply.upstream_headers(HEADER)) if reply.status == 200 else (str(reply.status), [])

        paths = (f"{made['externalPath']}/chat/completions", "/v1/chat/completions")
        for path in paths:
            assert until(lambda to=path: got(to) == ("chat", ["Bearer three"]), LIVE_S, every_s=0.2), (path, got(path))

        gateway.operator.must("PATCH", PATH, {"url": other.url, "upstreamAuth": {"secret": SECRET}})
        for path in paths:
            assert until(lambda to=path: got(to) == ("other", ["Bearer three"]), LIVE_S, every_s=0.2), (path, got(path))
        assert gateway.gateway.stat("listener_manager.listener_modified$") == drained
        gateway.unpublish(TEAM, MODEL)
        gateway.operator.must("DELETE", PATH)
