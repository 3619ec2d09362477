"""How a body comes to the gate with Check: every byte of it, on openai routes only, up to a bound, by two ways."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from gatebench import wait_until

from publisher.envoy.bodies import CHECK_FILTER, LARGE_BYTES
from publisher.envoy.bootstrap import bootstrap
from tests.e2e.meterbench import PATH, PLAIN, Bench, as_json, meterbench
from tests.e2e.metered import document
from tests.e2e.proxy import HOST, Reply, head

JSON: Final = "content-type: application/json"
BOUND: Final = 1024 * 1024


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One Envoy for all."""
    with meterbench({"json": document({"text": "x"})}, max_body_bytes=BOUND) as made:
        yield made


def asked(bench: Bench) -> bytes:
    """The body with which Check was asked last."""
    return bench.gate.requests[-1].attributes.request.http.raw_body


def padded(size: int) -> bytes:
    """A JSON body of so many bytes."""
    body = as_json(pad="")
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (as_json(), (JSON,)),
        (b'{"model":"llm"', (JSON,)),
        (b"\xff\xfe{}\x00", (JSON,)),
        (gzip.compress(as_json()), (JSON, "content-encoding: gzip")),
        (as_json(), ("content-type: text/plain",)),
        (as_json(), ("x-no-type: at-all",)),
    ],
    ids=["json", "broken", "no text", "gzip", "text", "untyped"],
)
def test_check_is_asked_with_the_very_bytes(bench: Bench, body: bytes, headers: tuple[str, ...]) -> None:
    """Whatever they are, and whatever they are said to be; the model's server gets them too."""
    assert bench.call("json", body, *headers, f"content-length: {len(body)}").status == 200
    assert asked(bench) == body
    assert bench.gate.requests[-1].attributes.request.http.size == len(body)


@pytest.mark.parametrize("size", [len(as_json()), LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, BOUND])
@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("framing", ["known", "chunked"])
def test_however_a_body_is_sent(bench: Bench, size: int, http: str, framing: str) -> None:
    """Up to the bound, by both versions of HTTP, with its length told or not."""
    body = padded(size) if size > len(as_json()) else as_json()
    chunked = ("-H", "transfer-encoding: chunked") if framing == "chunked" and http == "--http1.1" else ()
    unknown = ("-H", "content-length:") if framing == "chunked" else ()
    assert bench.curl("json", http, *chunked, *unknown, body=body).returncode == 0
    assert asked(bench) == body


@pytest.mark.parametrize("framing", ["known", "chunked"])
def test_a_byte_above_the_bound_is_413_before_check(bench: Bench, framing: str) -> None:
    """In OpenAI's shape; the gate is not asked."""
    body, before = padded(BOUND + 1), len(bench.gate.payloads)
    if framing == "known":
        reply = bench.call("json", body)
    else:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        reply = bench.call("json", chunks, JSON, "transfer-encoding: chunked")
    assert (reply.status, reply.json["error"]["code"]) == (413, "request_too_large")
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert "is larger than 1 MiB," in reply.json["error"]["message"]
    assert len(bench.gate.payloads) == before


def test_chunk_framing_and_trailers_are_no_body(bench: Bench) -> None:
    """A byte a chunk, with extensions and a trailer: the body's bytes are handed over, and no others."""
    body = as_json(max_tokens=3)
    framed = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-trailer: yes\r\n\r\n"
    assert bench.call("json", framed, JSON, "transfer-encoding: chunked").status == 200
    assert asked(bench) == body


def test_a_caller_may_wait_to_be_told_to_go_on(bench: Bench) -> None:
    """``Expect: 100-continue``: Envoy says so itself, and Check is asked with the body."""
    body = as_json()
    with bench.envoy.connect() as connection:
        said = (f"host: {HOST}", JSON, f"content-length: {len(body)}", "expect: 100-continue")
        connection.sendall(head("POST", f"{PATH}/json", *said))
        assert connection.recv(25, 0x100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # MSG_WAITALL
        connection.sendall(body)
        assert Reply.read(connection).status == 200
    assert asked(bench) == body


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_call_without_a_body_is_asked_about_at_once(bench: Bench, method: str) -> None:
    """With nothing for a body."""
    bench.gate.payloads.clear()
    said = (f"host: {HOST}", "content-length: 0") if method == "POST" else (f"host: {HOST}",)
    bench.envoy.send(head(method, f"{PATH}/json", *said))
    assert [one.attributes.request.http.raw_body for one in bench.gate.requests] == [b""]


def test_elsewhere_a_body_is_not_held(bench: Bench) -> None:
    """On a traditional route Check is asked at the end of the headers, and a body of any size goes to the server."""
    body = b"x" * (2 * BOUND)
    bench.gate.payloads.clear()
    with bench.envoy.connect() as connection:
        said = (f"host: {HOST}", JSON, f"content-length: {len(body)}")
        connection.sendall(head("POST", f"{PLAIN}/json", *said))
        wait_until(lambda: bool(bench.gate.payloads))
        assert asked(bench) == b""
        connection.sendall(body)
        assert Reply.read(connection).status == 200
    assert len(bench.gate.payloads) == 1


def large_connections(bench: Bench) -> int:
    """Checks that went by the way for large bodies."""
    return bench.envoy.stat("cluster.tollkeeper-gate-large.upstream_rq_total")


@pytest.mark.parametrize(
    ("size", "headers", "is_large"),
    [
        (LARGE_BYTES - 1, None, False),
        (LARGE_BYTES, None, True),
        (60, ("transfer-encoding: chunked",), True),
        (0, ("content-length: 0",), False),
    ],
    ids=["small", "large", "of no told length", "empty"],
)
def test_large_bodies_go_by_a_way_of_their_own(
    bench: Bench, size: int, headers: tuple[str, ...] | None, *, is_large: bool
) -> None:
    """Those of 256 KiB and more, and those that do not tell their length: with the same route, model and server."""
    body = padded(size) if size else b""
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if headers and "chunked" in headers[0] else body
    before = large_connections(bench)
    assert bench.call("json", framed, *((JSON, *headers) if headers else ())).status == 200
    assert (large_connections(bench) - before, asked(bench)) == (int(is_large), body)
    (route,) = bench.gate.requests[-1].attributes.route_metadata_context.filter_metadata.values()
    assert dict(route) == {"publication": "llm"}


def test_a_caller_who_leaves_while_they_upload_is_forgotten(bench: Bench) -> None:
    """Nobody is asked, and nothing of theirs is kept."""
    before = len(bench.gate.payloads)
    with bench.envoy.connect() as connection:
        connection.sendall(head("POST", f"{PATH}/json", f"host: {HOST}", JSON, f"content-length: {BOUND}"))
        connection.sendall(b"x" * (BOUND // 2))
        wait_until(lambda: bench.envoy.stat("http.ingress.downstream_rq_active") == 1)
    wait_until(lambda: bench.envoy.stat("http.ingress.downstream_rq_active") == 0)
    assert len(bench.gate.payloads) == before


def test_bytes_of_a_slow_upload_are_all_there(bench: Bench) -> None:
    """A body in many pieces, with pauses between them, is handed over whole."""
    body = padded(10_000)
    with bench.envoy.connect() as connection:
        connection.sendall(head("POST", f"{PATH}/json", f"host: {HOST}", JSON, f"content-length: {len(body)}"))
        received = "http.ingress.downstream_cx_rx_bytes_total"
        for at in range(0, len(body), 2_000):
            seen = bench.envoy.stat(received)
            connection.sendall(body[at : at + 2_000])
            wait_until(lambda seen=seen: bench.envoy.stat(received) > seen)  # type: ignore[misc]
        assert Reply.read(connection).status == 200
    assert asked(bench) == body


def test_a_setting_bounds_bodies() -> None:
    """``--max-body-mib``: 413 above it, which names it."""
    with meterbench({"json": document({"text": json.dumps({})})}, max_body_bytes=2 * BOUND) as bench:
        assert bench.call("json", padded(2 * BOUND)).status == 200
        reply = bench.call("json", padded(2 * BOUND + 1))
        assert (reply.status, "is larger than 2 MiB," in reply.json["error"]["message"]) == (413, True)


def _as_text(config: dict[str, Any]) -> dict[str, Any]:
    """Envoy Gateway's way to hand a body over."""
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (check,) = (one for one in manager["http_filters"] if one["name"] == CHECK_FILTER)
    check["typed_config"]["with_request_body"]["pack_as_bytes"] = False
    return config


def test_as_text_each_byte_that_is_not_utf_8_is_an_exclamation_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for one, so that nothing but the mark tells of it: what the gate refuses there rests on that."""
    monkeypatch.setattr("tests.e2e.proxy.bootstrap", lambda options: _as_text(bootstrap(options)))
    body = b'{"x":"\xff\xc0\xa2\xed\xa0\x80 \xc3\xa9"}'
    with meterbench({"json": document({"text": "x"})}) as bench:
        assert bench.call("json", body).status == 200
        http = bench.gate.requests[-1].attributes.request.http
        assert (http.body, http.raw_body, http.size) == ('{"x":"!!!!!! é"}', b"", len(body))
