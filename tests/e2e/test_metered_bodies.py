"""What Envoy reads of bodies: the counts that Check decides by, their size, and usage in its odder forms."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from publisher.envoy.bootstrap import bootstrap
from publisher.envoy.meter import Meter
from tests.e2e.meterbench import Bench, as_json, meterbench
from tests.e2e.metered import Answer, document, events, sse

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
LAST = {"choices": [], "usage": USAGE}
JSON: Final = "content-type: application/json"
PIECE: Final = 3_000


def completed(size: int) -> bytes:
    """The Responses API's last event, which repeats an answer of so many bytes."""
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    return sse({"type": "response.completed", "response": {"output": "x" * size, "usage": usage}}, done="")


ANSWERS: dict[str, Answer] = {
    "json": document({"usage": USAGE}),
    "large-event": events(completed(200_000), piece=PIECE),
    "largest-event": events(completed(1_000_000), piece=64_000),
    "carriage-returns": events(sse({"usage": None}, LAST, end="\r\r")),
    "named-events": events(b": ping\n\nevent: done\nid: 3\ndata: " + json.dumps(LAST).encode() + b"\n\n"),
    "several-lines": events(b'data: {"usage":\ndata: {"total_tokens":12}}\n\n'),
    "byte-order-mark": events(b"\xef\xbb\xbf" + sse(LAST)),
    "broken-event": events(sse(LAST) + b"data: {\n\ndata\n\n"),
    "null-total": document({"usage": {"total_tokens": None, "prompt_tokens": 5, "completion_tokens": 7}}),
    "null": document({"usage": None}),
    "list": document([USAGE]),
    "event-too-large": events(completed(4_000_000), piece=400_000, rest_s=0.02),
    "no-blank-line": events(b"data: " + json.dumps(LAST).encode() + b"\n"),
    "compressed": events(gzip.compress(sse(LAST))),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One Envoy for all."""
    with meterbench(ANSWERS) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [
        "large-event",
        "largest-event",
        "carriage-returns",
        "named-events",
        "several-lines",
        "byte-order-mark",
        "broken-event",
    ],
)
def test_usage_is_read(bench: Bench, name: str) -> None:
    """Of any event stream that the standard allows, with events up to a megabyte, cut anywhere."""
    bench.curl(name)
    assert bench.ended()["total"] == "12"


def test_parts_are_told_where_the_total_is_not(bench: Bench) -> None:
    """A null is no number."""
    bench.call("null-total")
    told = bench.ended()
    assert (told["total"], told["prompt"], told["completion"]) == ("-", "5", "7")


@pytest.mark.parametrize("name", ["null", "list", "event-too-large", "no-blank-line", "compressed"])
def test_usage_that_cannot_be_read_is_unknown(bench: Bench, name: str) -> None:
    """Such an answer is whole and untold; an event without its blank line is none (HTML standard, 9.2.6)."""
    assert bench.curl(name).returncode == 0
    told = bench.ended()
    assert (told["status"], told["flags"], told["total"], told["prompt"]) == ("200", "-", "-", "-")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON ;charset=UTF-8"]
)
def test_a_json_body_is_read(bench: Bench, kind: str) -> None:
    """Every count as it stands there, in every spelling of the type."""
    given = {"max_tokens": 10, "max_completion_tokens": 20, "max_output_tokens": 30, "n": 2, "stream": True}
    body = as_json(**given, stream_options={"include_usage": True})
    assert bench.call("json", body, f"content-type: {kind}", f"content-length: {len(body)}").status == 200
    assert bench.ended()["total"] == "12"
    assert bench.checked() == {"json": True, "model": "llm", "include_usage": True, **given}


@pytest.mark.parametrize(
    ("value", "read"),
    [("10", "10"), (-1, -1), (1.5, 1.5), (True, True), (10**20, 1e20), (None, "absent"), ("", "")],
)
def test_counts_keep_their_type(bench: Bench, value: object, read: object) -> None:
    """So that Check can refuse what cannot be meant: a text that looks like a number is a text."""
    bench.call("json", as_json(max_tokens=value))
    bench.ended()
    found = bench.checked().get("max_tokens", "absent")
    assert (found, type(found)) == (read, type(read) if isinstance(read, str | bool) else float)


def test_of_doubled_counts_one_is_read(bench: Bench) -> None:
    """The last. Which of them the server goes by is no matter: what it tells is charged."""
    bench.call("json", b'{"model":"llm","max_tokens":1,"max_tokens":2}')
    bench.ended()
    assert bench.checked()["max_tokens"] == 2


@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":["llm"]}'])
def test_a_body_without_a_model_is_a_body(bench: Bench, body: bytes) -> None:
    """Check can tell it from no JSON at all."""
    bench.call("json", body)
    bench.ended()
    assert bench.checked()["json"] is True
    assert bench.checked().get("model") != "llm"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model":"llm"', (JSON,)),
        (b"", (JSON,)),
        (b"\xff\xfe", (JSON,)),
        (gzip.compress(as_json()), (JSON, "content-encoding: gzip")),
        (as_json(), ("content-type: text/plain",)),
        (as_json(), ("content-type: application/jsonl",)),
        (as_json(), ("x-no-type: at-all",)),
    ],
    ids=["broken", "empty", "no-text", "gzip", "text", "jsonl", "untyped"],
)
def test_of_anything_else_nothing_is_read(bench: Bench, body: bytes, headers: tuple[str, ...]) -> None:
    """Check sees that there was no JSON body, and refuses."""
    bench.gate.payloads.clear()
    bench.call("json", body, *headers, f"content-length: {len(body)}")
    assert "json" not in bench.checked()


SIZES: Final = [len(as_json()), 70_000, 1_000_000, 4 * 1024 * 1024]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("http", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("framing", ["known", "chunked"])
def test_check_is_told_how_many_bytes_a_body_has(bench: Bench, size: int, http: str, framing: str) -> None:
    """Exactly, however it is sent, up to the bound: tokens are held back by it."""
    body = as_json(pad="")
    body = body[:-2] + b"x" * (size - len(body)) + body[-2:] if size > len(body) else as_json()
    assert len(body) == size
    chunked = ("-H", "transfer-encoding: chunked") if framing == "chunked" and http == "--http1.1" else ()
    unknown = ("-H", "content-length:") if framing == "chunked" else ()
    assert bench.curl("json", http, *chunked, *unknown, body=body).returncode == 0
    assert bench.ended()["total"] == "12"
    assert bench.gate.requests[-1].attributes.request.http.size == size


def test_chunk_framing_and_trailers_are_no_body(bench: Bench) -> None:
    """A byte a chunk, with extensions and a trailer: the body's bytes are counted, and no others."""
    body = as_json(max_tokens=3)
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body)
    framed = chunks + b"0\r\nx-trailer: yes\r\n\r\n"
    assert bench.call("json", framed, JSON, "transfer-encoding: chunked").status == 200
    bench.ended()
    asked = bench.gate.requests[-1].attributes.request.http
    assert (asked.size, bench.checked()["max_tokens"]) == (len(body), 3)


def test_a_setting_bounds_bodies_and_json_answers() -> None:
    """Both, because Envoy has one bound."""
    answers = {"json": document({"usage": USAGE}), "large": document({"text": "x" * 1_100_000, "usage": USAGE})}
    with meterbench(answers, max_body_bytes=1024 * 1024) as bench:
        large = as_json(pad="x" * 1_100_000)
        assert bench.call("json", large).json["error"]["code"] == "request_too_large"
        assert bench.call("large").json["error"]["code"] == "answer_too_large"
        assert bench.ended()["status"] == "500"
    with meterbench(answers, max_body_bytes=2 * 1024 * 1024) as bench:
        assert bench.call("large", large).status == 200
        assert bench.ended()["total"] == "12"


GATEWAYS = Meter("io.envoy.ai_gateway", "llm_total_token", "llm_input_token", "llm_output_token")
"""Envoy AI Gateway's metadata, as its documentation for usage-based limits names them."""


def test_another_filters_count_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Envoy AI Gateway counts tokens, its metadata are told instead of what our filters read."""
    counted = {"x-total": "llm_total_token", "x-input": "llm_input_token", "x-output": "llm_output_token"}
    answer = document({"usage": USAGE}, "x-total: 99", "x-input: 90", "x-output: 9")
    monkeypatch.setattr("tests.e2e.proxy.bootstrap", lambda options: _with_counter(bootstrap(options), counted))
    with meterbench({"json": answer}, meter=GATEWAYS) as bench:
        bench.call("json")
        told = bench.ended()
        assert (told["total"], told["prompt"], told["completion"]) == ("99", "90", "9")


def _with_counter(config: dict[str, Any], counted: dict[str, str]) -> dict[str, Any]:
    """Put a filter before the router that counts tokens in its own way: an answer's headers say them."""
    rules = [
        {
            "header": header,
            "on_header_present": {"metadata_namespace": GATEWAYS.namespace, "key": key, "type": "NUMBER"},
        }
        for header, key in counted.items()
    ]
    (listener,) = config["static_resources"]["listeners"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
    other = {"name": "another-meter", "typed_config": {"@type": kind, "response_rules": rules}}
    filters.insert(-1, other)
    return config
