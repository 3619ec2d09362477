"""Callers that speak otherwise than most: HTTP/1.0, WebSocket first, too many headers. Through a real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator

import aiohttp
import h2.connection
import pytest

from tests.e2e.proxy import (
    HOST,
    Envoy,
    Gate,
    Reply,
    Upstream,
    head,
    openai,
    options_for,
    publication,
    short_folder,
    stripped,
)

HANDSHAKE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
CHAT = b'{"model":"llm"}'
OF_CHAT = ("content-type: application/json", f"content-length: {len(CHAT)}")


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Envoy, Gate, Upstream]]:
    """One Envoy with a traditional and an openai publication, of one server."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        gate.models = {(HOST, "llm"): "llm"}
        envoy = Envoy(options_for(folder, gate.target))
        made = [
            publication("iris", "/models/iris", upstream.url),
            stripped("slow", "/models/slow", upstream.url),
            openai("llm", "/v1/models/llm", upstream.url),
        ]
        envoy.publish(made)
        with envoy:
            yield envoy, gate, upstream


@pytest.fixture
def envoy(parts: tuple[Envoy, Gate, Upstream]) -> Envoy:
    """The Envoy."""
    return parts[0]


@pytest.fixture
def untouched(parts: tuple[Envoy, Gate, Upstream]) -> Iterator[None]:
    """Neither the gate nor the server hears of what the test sends."""
    before = len(parts[1].payloads), parts[2].seen
    yield
    assert (len(parts[1].payloads), parts[2].seen) == before


def old(method: str, path: str, *headers: str) -> bytes:
    """A request's head of HTTP/1.0."""
    return head(method, path, f"host: {HOST}", *headers).replace(b"HTTP/1.1", b"HTTP/1.0")


def until_closed(envoy: Envoy, request: bytes) -> bytes:
    """All that comes on a connection until Envoy closes it."""
    with envoy.connect() as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_bytes", "path"),
    [
        (old("GET", "/models/iris"), "/v1/models/iris"),
        (old("POST", "/models/iris/predict", "content-length: 2") + b"{}", "/v1/models/iris:predict"),
        (
            old("POST", "/v1/chat/completions", "content-type: application/json", f"content-length: {len(CHAT)}")
            + CHAT,
            "/v1/chat/completions",
        ),
    ],
)
def test_http_1_0_is_served(envoy: Envoy, request_bytes: bytes, path: str) -> None:
    """A proxy that speaks it to us (nginx by itself) needs no setting; the connection is closed behind the answer."""
    began, _, body = until_closed(envoy, request_bytes).partition(b"\r\n\r\n")
    assert began.startswith(b"HTTP/1.0 200 OK\r\n")
    assert (json.loads(body)["upstream"], json.loads(body)["line"].split()[1]) == ("up", path)


def test_a_stream_is_whole_over_http_1_0(envoy: Envoy) -> None:
    """It knows no chunks: the answer's end is that of the connection."""
    began, _, body = until_closed(envoy, old("GET", "/models/slow/slow")).partition(b"\r\n\r\n")
    assert b"chunked" not in began
    assert body == b"." * 100


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "request_bytes",
    [
        old("GET", "/models/iris").replace(f"host: {HOST}\r\n".encode(), b""),
        old("POST", "/models/iris", "content-length: 2", "transfer-encoding: chunked") + b"{}",
    ],
)
def test_http_1_0_is_held_to_a_host_and_one_length(envoy: Envoy, request_bytes: bytes) -> None:
    """No host is guessed, and no body has two ends."""
    reply = envoy.send(request_bytes)
    assert (reply.status, reply.json["error"]["code"]) == (400, "malformed_request")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("path", ["/models/iris", "/v1/responses", "/v1/models/llm/realtime"])
def test_a_handshake_is_told_to_post(envoy: Envoy, path: str) -> None:
    """A client that tries WebSocket first goes on by POST on 426, and is told so in OpenAI's shape."""
    reply = envoy.get(path, "x-api-key: tk_a", *HANDSHAKE)
    assert (reply.status, reply.headers["content-type"]) == (426, "application/json")
    assert reply.json["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "code": "upgrade_not_supported",
        "param": None,
    }
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.usefixtures("untouched")
async def test_a_websocket_client_sees_426(envoy: Envoy) -> None:
    """A real one, which tells its user the status."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"http://127.0.0.1:{envoy.ports['http']}/v1/responses", headers={"host": HOST})
    assert refused.value.status == 426


def test_http2_offers_no_websocket(envoy: Envoy) -> None:
    """Extended CONNECT (RFC 8441) is not among Envoy's settings, so no client may ask for it."""
    talk = h2.connection.H2Connection()
    talk.initiate_connection()
    with envoy.connect() as connection:
        connection.sendall(talk.data_to_send())
        talk.receive_data(connection.recv(65536))
    assert talk.remote_settings.enable_connect_protocol == 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("headers", [["x-long: " + "x" * 40_000], [f"x-{n}: 1" for n in range(120)]])
def test_too_many_headers_are_told(envoy: Envoy, headers: list[str]) -> None:
    """In OpenAI's shape, with both bounds."""
    reply: Reply = envoy.get("/models/iris", *headers)
    assert (reply.status, reply.json["error"]["code"]) == (431, "request_headers_too_large")
