"""Anthropic's words behind Envoy Gateway: what the gate says, and what Envoy says by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatewayground import Ground
from gatewaystack import BARE, METERED, both_modes, wired

from tests.e2e.proxy import Reply

pytestmark = [pytest.mark.gateway]

VERSION = "anthropic-version: 2023-06-01"
BODY = b'{"model": "echo", "max_tokens": 5, "messages": []}'


def said(reply: Reply, status: int, kind: str, code: str) -> Any:
    """The error of an answer that must be this one, in Anthropic's shape, with the id that the log has."""
    body = reply.json
    assert (reply.status, body["type"], body["error"]["type"]) == (status, "error", kind), reply
    assert body["error"]["details"]["error_code"] == code
    assert body["request_id"] == reply.headers["request-id"]
    assert reply.headers.get("x-request-id", body["request_id"]) == body["request_id"]  # without patches it is not said
    return body["error"]


@both_modes
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models/echo/messages?beta=true"])
def test_a_call_passes_with_its_id(ground: Ground, path: str) -> None:
    """And with both of its headers for the server."""
    answer = ground.machine.post(path, BODY, ground.with_key, VERSION, "anthropic-beta: a,b")
    assert (answer.status, answer.upstream) == (200, "echo")
    assert answer.upstream_headers("x-request-id") == [answer.headers["request-id"]]
    assert answer.upstream_headers("anthropic-version") == ["2023-06-01"]
    assert answer.upstream_headers("anthropic-beta") == ["a,b"]


@both_modes
def test_limits_have_its_names(ground: Ground) -> None:
    """Of a model that has some."""
    answer = ground.machine.post("/v1/messages", BODY.replace(b"echo", b"llm"), ground.with_key)
    assert int(answer.headers["anthropic-ratelimit-tokens-limit"]) > 0
    assert "x-ratelimit-limit-tokens" not in answer.headers


@wired(METERED, "metered")
def test_refusals(ground: Ground) -> None:
    """The gate's; a model of no name, which Envoy Gateway's own answer tells; no route; a large body."""
    machine, key = ground.machine, ground.with_key
    said(machine.post("/v1/messages", BODY), 401, "authentication_error", "invalid_api_key")
    said(machine.post("/v1/messages", BODY.replace(b"echo", b"no"), key), 404, "not_found_error", "model_not_found")
    for nowhere in (machine.post("/v1/messages", BODY, key, host="other.test"), machine.get("/no", key, VERSION)):
        said(nowhere, 404, "not_found_error", "not_found")
    large = b'{"model": "echo", "x": "%s"}' % (b"x" * 5 * 1024 * 1024)
    said(machine.post("/v1/messages", large, key), 413, "request_too_large", "request_too_large")
    plain = json.loads(machine.post("/v1/chat/completions", large, key).body)
    assert plain["error"]["code"] == "request_too_large"


@wired(BARE, "bare")
def test_without_patches_only_the_gates_own_refusals_have_its_words(ground: Ground) -> None:
    """As docs/anthropic.md says: there Envoy's own answers know one shape, or none."""
    machine, key = ground.machine, ground.with_key
    said(machine.post("/v1/messages", BODY), 401, "authentication_error", "invalid_api_key")
    large = b'{"model": "echo", "x": "%s"}' % (b"x" * 5 * 1024 * 1024)
    refused = machine.post("/v1/messages", large, key)
    assert (refused.status, refused.json["error"]["code"]) == (413, "request_too_large")


@both_modes
def test_models(ground: Ground) -> None:
    """Asked for by one path, told in the words of who asks."""
    page = ground.machine.get("/v1/models?limit=1", ground.with_key, VERSION).json
    assert (page["data"][0]["type"], page["has_more"], page["last_id"]) == ("model", True, page["data"][0]["id"])
    assert ground.machine.get("/v1/models", ground.with_key).json["object"] == "list"
