"""What Envoy answers by itself to Anthropic's clients: in their words, with the call's id. Through a real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from protos.external_auth_pb2 import CheckRequest, CheckResponse
from tests.e2e.proxy import (
    HOST,
    Envoy,
    Gate,
    Reply,
    Upstream,
    admitted,
    denied,
    head,
    openai,
    options_for,
    short_folder,
)

VERSION = "anthropic-version: 2023-06-01"
BODY = b'{"model":"llm"}'
AWAY = b'{"model":"away"}'
UNSERVED = b'{"model":"unserved"}'


class Parts:
    """An Envoy with two models of one host, of which one server is away; and its gate."""

    def __init__(self, envoy: Envoy, gate: Gate, upstream: Upstream) -> None:
        self.envoy = envoy
        self.gate = gate
        self.upstream = upstream


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """One machine for all."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up", "request-id: req_own") as upstream:
        gate.models = {(HOST, name): name for name in ("llm", "away", "unserved")}
        envoy = Envoy(options_for(folder, gate.target, request_timeout_s=2, max_body_bytes=64 * 1024))
        envoy.publish(
            [openai("llm", "/models/llm", upstream.url), openai("away", "/models/away", "http://127.0.0.1:9")]
        )
        with envoy:
            yield Parts(envoy, gate, upstream)


def said(reply: Reply, status: int, kind: str, code: str) -> Any:
    """The error of an answer that must be this one, in Anthropic's shape, with the id that our log has."""
    body = reply.json
    assert (reply.status, body["type"], body["error"]["type"]) == (status, "error", kind), reply
    assert body["error"]["details"]["error_code"] == code
    assert body["request_id"] == reply.headers["x-request-id"] == reply.headers["request-id"]
    assert reply.headers["content-type"] == "application/json"
    return body["error"]


def test_no_route(parts: Parts) -> None:
    """What is published nowhere, by the path and by the header."""
    error = said(parts.envoy.post("/v1/messages", BODY, host="other.test"), 404, "not_found_error", "not_found")
    assert error["message"] == "Nothing is published at other.test/v1/messages."
    assert error["details"]["path"] == "/v1/messages"
    said(parts.envoy.get("/nowhere", VERSION), 404, "not_found_error", "not_found")
    assert parts.envoy.get("/nowhere").json["error"]["code"] == "not_found"
    key = "tk_0a7zwxlkek4wmtu7ydi_" + 43 * "A"
    hidden = parts.envoy.get(f"/nowhere/{key}/messages", VERSION)
    assert key not in hidden.body
    said(hidden, 404, "not_found_error", "not_found")


def test_no_model_and_no_server(parts: Parts) -> None:
    """A model that Envoy does not serve yet, and one whose server is away."""
    said(parts.envoy.post("/v1/messages", UNSERVED), 404, "not_found_error", "model_not_found")
    said(parts.envoy.post("/v1/messages", AWAY), 503, "api_error", "upstream_unavailable")
    said(parts.envoy.post("/models/away/messages?beta=true", AWAY), 503, "api_error", "upstream_unavailable")
    assert parts.envoy.post("/v1/chat/completions", AWAY).json["error"]["code"] == "upstream_unavailable"


def test_a_large_body(parts: Parts) -> None:
    """Before the gate is asked."""
    large = b'{"model":"llm","x":"%s"}' % (b"x" * 100_000)
    for path in ("/v1/messages", "/models/llm/messages/count_tokens"):
        said(parts.envoy.post(path, large), 413, "request_too_large", "request_too_large")
    assert parts.envoy.post("/v1/chat/completions", large).json["error"]["code"] == "request_too_large"


def test_a_handshake(parts: Parts) -> None:
    """No socket is opened, and no client tries again."""
    asked = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eHh4eA==")
    reply = parts.envoy.get("/v1/messages", *asked)
    said(reply, 426, "invalid_request_error", "upgrade_not_supported")
    assert reply.headers["x-should-retry"] == "false"


def test_what_envoy_cannot_read(parts: Parts) -> None:
    """As far as it has read the path: an escaped slash, a slow body; of too many headers it has read nothing."""
    malformed = parts.envoy.get("/v1%2Fmodels/messages", VERSION)
    error = malformed.json["error"]
    assert (malformed.status, error["details"]["error_code"]) == (400, "malformed_request")
    assert "path_normalization_failed" in error["message"]
    assert malformed.json["request_id"] is None  # Envoy had given it no id yet
    slow = parts.envoy.send(head("POST", "/v1/messages", f"host: {HOST}", "content-length: 5") + b"{")
    said(slow, 408, "invalid_request_error", "request_timeout")
    many = [f"x-{number}: 1" for number in range(120)]
    long = parts.envoy.get("/v1/messages", *many)
    assert (long.status, json.loads(long.body)["error"].get("code")) == (431, "request_headers_too_large")


def test_what_the_gate_says_stays(parts: Parts) -> None:
    """Its own refusals are its own; but for the one that names what was looked for."""

    def refuse(_request: CheckRequest) -> CheckResponse:
        answer = denied(429)
        answer.denied_response.body = '{"type":"error"}'
        answer.dynamic_metadata["reason"] = "limited"
        return answer

    def not_here(_request: CheckRequest) -> CheckResponse:
        answer = denied(404)
        answer.dynamic_metadata["reason"] = "no_publication"
        return answer

    parts.gate.answer = refuse
    try:
        reply = parts.envoy.post("/v1/messages", BODY)
        assert (reply.status, reply.body) == (429, '{"type":"error"}')
        parts.gate.answer = not_here
        error = said(parts.envoy.post("/models/llm/messages", BODY), 404, "not_found_error", "not_found")
        assert error["details"]["reason"] == "no_publication"
    finally:
        parts.gate.answer = None


def test_a_servers_own_id_stays(parts: Parts) -> None:
    """What the gate adds is for servers that say none."""

    def admit(_request: CheckRequest) -> CheckResponse:
        answer = admitted({"x-tollkeeper-publication": "llm"})
        for name in ("request-id", "x-other-id"):
            option = answer.ok_response.response_headers_to_add.add(append_action="ADD_IF_ABSENT")
            option.header.key, option.header.value = name, "ours"
        return answer

    parts.gate.answer = admit
    try:
        reply = parts.envoy.post("/v1/messages", BODY)
        assert (reply.headers["request-id"], reply.headers["x-other-id"]) == ("req_own", "ours")
    finally:
        parts.gate.answer = None


def test_openais_callers_are_told_nothing_of_it(parts: Parts) -> None:
    """Threads and stored chats have messages too, and a model may be called so."""
    for path in ("/v1/threads/t1/messages", "/v1/models/messages", "/v1/chat/completions/c1/messages"):
        reply = parts.envoy.get(path, host="other.test")
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
        assert "request-id" not in reply.headers


def test_without_a_gate(parts: Parts) -> None:
    """503 with a body in either API's words, and when to come again. The last test: the gate does not come back."""
    parts.gate.stop()
    reply = parts.envoy.post("/v1/messages", BODY)
    said(reply, 503, "api_error", "gate_unavailable")
    assert reply.headers["retry-after"] == "1"
    plain = parts.envoy.post("/v1/chat/completions", BODY)
    assert (plain.status, plain.json["error"]["code"]) == (503, "gate_unavailable")
    assert plain.headers["retry-after"] == "1"
