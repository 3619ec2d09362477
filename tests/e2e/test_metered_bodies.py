"""What Envoy reads of answers: usage in its odder forms, of any size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from publisher.envoy.bootstrap import bootstrap
from ratelimit.service.endings_edge import read_entry
from ratelimit.tokens.meter import Meter
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
    "huge-event": events(completed(4_000_000), piece=400_000),
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
        "huge-event",
        "no-blank-line",
    ],
)
def test_usage_is_read(bench: Bench, name: str) -> None:
    """Of any event stream that the standard allows, with events of any size, cut anywhere, the last unfinished."""
    bench.curl(name)
    assert bench.ended()["total"] == "12"


def test_parts_are_told_where_the_total_is_not(bench: Bench) -> None:
    """A null is no number."""
    bench.call("null-total")
    told = bench.ended()
    assert (told["total"], told["prompt"], told["completion"]) == ("-", "5", "7")


@pytest.mark.parametrize("name", ["null", "list", "compressed"])
def test_usage_that_cannot_be_read_is_unknown(bench: Bench, name: str) -> None:
    """Such an answer is whole and untold."""
    assert bench.curl(name).returncode == 0
    told = bench.ended()
    assert (told["status"], told["flags"], told["total"], told["prompt"]) == ("200", "-", "-", "-")


def test_a_setting_bounds_bodies_and_no_answers() -> None:
    """What the caller sends is held whole, what the server sends is not."""
    answers = {"json": document({"usage": USAGE}), "large": document({"text": "x" * 1_100_000, "usage": USAGE})}
    with meterbench(answers, max_body_bytes=1024 * 1024) as bench:
        large = as_json(pad="x" * 1_100_000)
        assert bench.call("json", large).json["error"]["code"] == "request_too_large"
        assert bench.call("large").status == 200
        assert bench.ended()["total"] == "12"
    with meterbench(answers, max_body_bytes=2 * 1024 * 1024) as bench:
        assert bench.call("large", large).status == 200
        assert bench.ended()["total"] == "12"


GATEWAYS = Meter("io.envoy.ai_gateway", "llm_total_token", "llm_input_token", "llm_output_token")
"""Envoy AI Gateway's metadata, as its documentation for usage-based limits names them."""


def test_another_filters_count_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Envoy AI Gateway counts tokens, a gate that is told so reads its metadata in the log."""
    counted = {"x-total": "llm_total_token", "x-input": "llm_input_token", "x-output": "llm_output_token"}
    answer = document({"usage": USAGE}, "x-total: 99", "x-input: 90", "x-output: 9")
    monkeypatch.setattr("tests.e2e.proxy.bootstrap", lambda options: _with_counter(bootstrap(options), counted))
    with meterbench({"json": answer}) as bench:
        bench.call("json")
        told = read_entry(bench.entry(), GATEWAYS)
        assert told is not None
        assert (told.ended.total, told.ended.prompt, told.ended.completion) == (99, 90, 9)


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
