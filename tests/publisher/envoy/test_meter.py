"""The script that reads answers' usage, in LuaJIT: every form of answer, cut anywhere, at any size."""

from __future__ import annotations

import json
import time

import pytest
from luameter import EVENTS, JSON, LuaMeter, cut
from usagemodel import PARTS, usage_of_events, usage_of_json

from publisher.envoy.answer import answer_filter, meter
from ratelimit.tokens.meter import USAGE_NAMESPACE
from tests.tables.answers import READ, UNREAD, Form

LUA = LuaMeter()
TWELVE = b'"usage":{"total_tokens":12}'
KEPT_BYTES = 64 * 1024
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'


@pytest.mark.parametrize("form", [*READ, *UNREAD], ids=lambda form: form.name)
def test_each_form_is_read(form: Form) -> None:
    """What the table says, from one piece."""
    assert LUA.read([form.body], form.kind, **form.headers) == form.told


@pytest.mark.parametrize("form", READ, ids=lambda form: form.name)
def test_it_is_the_same_wherever_it_is_cut(form: Form) -> None:
    """In two at every byte (of long ones at some), and byte by byte."""
    for at in range(1, len(form.body), max(1, len(form.body) // 1_500)):
        assert LUA.read([form.body[:at], form.body[at:]], form.kind) == form.told, at
    assert LUA.read(cut(form.body, 1), form.kind) == form.told


@pytest.mark.parametrize("form", READ, ids=lambda form: form.name)
def test_the_model_says_the_same(form: Form) -> None:
    """So that what the fuzz test holds the script to is itself held to the table."""
    model = usage_of_events if "event-stream" in form.kind else usage_of_json
    assert model(form.body) == form.told


@pytest.mark.parametrize("form", UNREAD, ids=lambda form: form.name)
def test_what_is_not_read_is_not_looked_at(form: Form) -> None:
    """Not one piece is asked for, so audio, images and failures cost nothing."""
    assert LUA.run(cut(form.body, 7), form.kind, **form.headers).asked == 0
    assert LUA.run([b"x"], None).asked == 0


def test_usage_is_told_as_soon_as_it_is_there() -> None:
    """A stream that breaks off after its usage has told it: the closing brace is enough."""
    told = b'data: {"choices":[],"usage":{"prompt_tokens":5,"total_tokens":12}'
    assert LUA.run([EVENT, told], EVENTS, breaks=True).told == {"prompt": 5, "total": 12, "events": 2}
    assert LUA.run([b"{" + TWELVE], JSON, breaks=True).told == {"total": 12}


@pytest.mark.parametrize("events", [1, 2, 3, 4, 9, 100, 1_000])
def test_events_are_told_while_they_pass(events: int) -> None:
    """Of a stream that breaks off at most a fifth is missing; metadata are set in steps, for that costs time."""
    broken = LUA.run([EVENT] * events, EVENTS, breaks=True)
    assert events * 4 / 5 <= broken.told["events"] <= events
    assert broken.sets <= 30
    assert LUA.read([EVENT] * events, EVENTS) == {"events": events}
    assert LUA.read([EVENT * events], EVENTS) == {"events": events}


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","usage":null}}\n\n'


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (b'{"id":"resp_1","usage":null}', JSON, "resp_1"),
        (b'{\n  "id": "resp_' + b"a" * 123 + b'"', JSON, "resp_" + "a" * 123),
        (b'{"id":"resp_' + b"a" * 124 + b'"}', JSON, ""),
        (b'{"id":""}', JSON, ""),
        (b'{"id":"a.b"}', JSON, ""),
        (b'{"id":7}', JSON, ""),
        (b'{"object":"response","id":"resp_1"}', JSON, ""),
        (b'{"response":{"id":"resp_1"}}', JSON, ""),
        (b'[{"id":"resp_1"}]', JSON, ""),
        (CREATED + EVENT, EVENTS, "resp_1"),
        (b": ping\n\n" + CREATED, EVENTS, "resp_1"),
        (CREATED + CREATED.replace(b"resp_1", b"resp_2"), EVENTS, "resp_1"),
        (EVENT + CREATED, EVENTS, ""),
        (b'data: {"text":"\\"response\\":{\\"id\\":\\"resp_1\\"}"}\n\n', EVENTS, ""),
        (b'data: {"x":"' + b"x" * 1_024 + b'","response":{"id":"resp_1"}}\n\n', EVENTS, ""),
        (b'data: {"response":{"id":"resp_1","x":"' + b"x" * 100_000 + b'"}}\n\n', EVENTS, "resp_1"),
        (b'data: {"id":"resp_1"}\n\n', EVENTS, ""),
    ],
)
def test_an_answers_id_is_told_where_it_stands_first(text: bytes, kind: str, told: str) -> None:
    """Of JSON its first member, of events the response's; no other, and none that is longer than 128 bytes."""
    assert LUA.run([text], kind).id == told
    assert LUA.run([text], kind, content_encoding="gzip").id == ""
    assert LUA.run([text], kind, status="404").id == ""


def test_an_event_that_is_cut_tells_its_id_all_the_same() -> None:
    """It is looked for when the event has ended."""
    for at in range(1, len(CREATED)):
        assert LUA.run([CREATED[:at], CREATED[at:]], EVENTS).id == "resp_1", at
    assert LUA.run(cut(CREATED, 1), EVENTS).id == "resp_1"


def test_metadata_are_set_only_when_they_grow() -> None:
    """A number that is told again in each event is set once."""
    told = b'data: {"usage":{"total_tokens":12}}\n\n'
    assert LUA.run([told] * 4, EVENTS).sets == 1 + 4


@pytest.mark.parametrize("size", [4_000, 4_096, 5_000, 65_536, 1_000_000])
@pytest.mark.parametrize("piece", [1_000, 3_001, 16_384, 2_000_000])
def test_size_is_no_bound(size: int, piece: int) -> None:
    """Neither of an answer, nor of an event, nor of what stands before and behind usage."""
    pad = b'"pad":"' + b"x{}\\\\" * (size // 5) + b'\\"",'
    for fields in (TWELVE + b"," + pad + b'"z":1', pad + TWELVE, pad + TWELVE + b"," + pad + b'"z":1'):
        assert LUA.read(cut(b"{" + fields + b"}", piece)) == {"total": 12}
        event = b'data: {"type":"response.completed","response":{' + fields + b"}}\n\n"
        assert LUA.read(cut(event, piece), EVENTS) == {"total": 12, "events": 1}
        assert LUA.read(cut(EVENT + event + EVENT, piece), EVENTS) == {"total": 12, "events": 3}


@pytest.mark.parametrize("kind", [JSON, EVENTS])
@pytest.mark.parametrize(
    "head",
    [
        b'{"text":"',
        b'{"text":[',
        b'{"usage":{"a":"',
        b'{"usage":{',
        b'"',
        b"\\",
        b"{",
        b"[[[[",
        b' {"usage"',
        b"data: ",
        b": ",
    ],
)
@pytest.mark.parametrize("tail", [b"x", b'"a":{', b"[", b"\\", b'"', b" ", b"1,", b"\n", b"\r\n"])
def test_little_is_kept_of_an_answer(kind: str, head: bytes, tail: bytes) -> None:
    """Whatever comes, 64 KiB at most between two pieces: an answer that never ends cannot fill Envoy."""
    text = (b"data: " if kind == EVENTS else b"") + head + tail * (400_000 // len(tail))
    pieces = cut(text, 2_000)
    base = LUA.run([], kind, weighs=True).most_bytes
    held = LUA.run(pieces, kind, weighs=True).most_bytes - base
    assert held - len(text) < KEPT_BYTES + 60 * len(pieces)  # the pieces are held by the test itself


def test_usage_objects_are_small() -> None:
    """One above 16 KiB is none, however it comes."""
    for size, told in ((16_000, {"total": 12}), (17_000, {})):
        text = b'{"usage":{"note":"' + b"x" * size + b'","total_tokens":12}}'
        for piece in (100, 20_000):
            assert LUA.read(cut(text, piece)) == told


SLOW = {
    "a text": (JSON, b'{"a":"', b"x"),
    "an event's text": (EVENTS, b'data: {"a":"', b"x"),
    "an event's structure": (EVENTS, b"data: ", b'{"a":['),
    "a usage object": (JSON, b'{"usage":{', b'"a":"x",'),
    "a comment": (EVENTS, b": ", b"x"),
    "backslashes": (JSON, b'{"a":"', b"\\"),
    "blank": (JSON, b'{"usage"', b" "),
}


@pytest.mark.parametrize("name", SLOW)
def test_time_grows_with_the_bytes_and_not_with_their_square(name: str) -> None:
    """Of a server that sends byte by byte: ten times as many bytes take some ten times as long."""
    kind, head, tail = SLOW[name]

    def spent_s(size: int) -> float:
        pieces = [head, *cut(tail * (size // len(tail)), 1)]
        times = []
        for _ in range(3):
            began = time.process_time()
            LUA.read(pieces, kind)
            times.append(time.process_time() - began)
        return min(times)

    assert spent_s(80_000) < 25 * spent_s(8_000) + 0.01


def test_a_fault_ends_the_reading_and_is_told() -> None:
    """No piece is asked for any more: those pass by themselves."""
    broken = LuaMeter(meter().replace("local numbers = {}", 'error("a fault")'))
    run = broken.run([b"{" + TWELVE + b"}", b" ", b" "])
    assert (run.told, run.asked) == ({"fault": 1}, 1)
    last = broken.run([b"data: {" + TWELVE[:-1], b"}"], EVENTS)
    assert last.told == {"fault": 1, "events": 1}


def test_the_filter_has_the_script_and_no_request_side() -> None:
    """A function for requests would cost every call; Envoy Gateway runs whatever it finds the name of."""
    assert answer_filter()["typed_config"]["default_source_code"] == {"inline_string": meter()}
    assert "envoy_on_request" not in meter()
    assert f'"{USAGE_NAMESPACE}"' in meter()


def test_the_model_knows_the_same_names() -> None:
    """Every name of a number stands in the script, and none besides."""
    table = meter().partition("local PARTS = {")[2].partition("}")[0]
    said = dict(line.strip(" ,").split(" = ") for line in table.strip().splitlines())
    assert said == {name: json.dumps(part) for part, names in PARTS.items() for name in names}
