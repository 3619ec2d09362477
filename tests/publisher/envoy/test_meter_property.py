"""Any answer, whole or odd, cut anywhere: the script finds what the model finds, and never fails."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from luameter import EVENTS, JSON, LuaMeter
from usagemodel import PARTS, id_of_events, id_of_json, ids_of_events, usage_of_events, usage_of_json

LUA = LuaMeter()
EXAMPLES = int(os.environ.get("TOLLKEEPER_TEST_EXAMPLES", "100"))
NAMES = [name for names in PARTS.values() for name in names]
HOLDERS = ["usage", "usageMetadata", "message", "response", "x_groq", "meta", "tokens", "choices", "billed_units"]
IDS = ["resp_1", "chatcmpl-7", "a" * 128, "a" * 129, "", "a b", "é", "x:y"]
DETAILS = ["prompt_tokens_details", "delta", "text", "input", "data", "my_usage", 'a "usage"', "\\", "data:"]

numbers = st.one_of(
    st.integers(-3, 50_000), st.integers(0, 10**30), st.floats(allow_nan=False, allow_infinity=False), st.just(0)
)
texts = st.one_of(st.text(max_size=5), st.sampled_from(['"usage":{', '{"usage":{"total_tokens":9}}', "\\", '\\"', "}"]))
leaves = st.one_of(numbers, texts, st.none(), st.booleans())
keys = st.one_of(st.sampled_from(HOLDERS), st.sampled_from(NAMES), st.sampled_from(DETAILS), st.text(max_size=4))
usages = st.dictionaries(st.sampled_from(NAMES + DETAILS), st.one_of(numbers, leaves), max_size=5)
values = st.recursive(
    st.one_of(leaves, usages),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.sampled_from(HOLDERS), st.one_of(usages, inner), max_size=3),
    ),
    max_leaves=20,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A JSON document as some server might write it."""
    value: Any = draw(st.one_of(st.dictionaries(keys, values, max_size=4), st.lists(values, max_size=3), values))
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\t")]))
    return json.dumps(value, separators=spaced, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """The same with bytes taken out, put in or doubled."""
    text = draw(documents())
    for _ in range(draw(st.integers(0, 3))):
        at, to = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        inside = draw(st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"]", b":", text[at:to]]))
        text = text[:at] + inside + text[to if draw(st.booleans()) else at :]
    return text


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Server-sent events with names, comments, lines of any ending and data of several lines."""
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        name = draw(
            st.sampled_from(["", "", "event: ping", "event: a.delta", "event: a_stop", "event:x", ": it's", "id: 1"])
        )
        data = draw(st.one_of(documents(), broken(), st.just(b"[DONE]"), st.just(b"")))
        data = data.replace(b"\r", b"").replace(b"\n", b"")
        if draw(st.booleans()):
            data = data.replace(b":", b":" + ending.encode() + b"data: ", 1)
        space = draw(st.sampled_from([b" ", b""]))
        parts.append((name + ending if name else "").encode() + b"data:" + space + data + 2 * ending.encode())
    text = b"".join(parts)
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def in_pieces(text: bytes, places: list[int]) -> list[bytes]:
    """The text cut at these places, as far as it has them."""
    at = sorted({place % (len(text) + 1) for place in places})
    return [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]


cuts = st.one_of(st.lists(st.integers(0, 2_000), max_size=6), st.just(list(range(3_000))))


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.one_of(documents(), broken()), places=cuts)
def test_a_json_answer_tells_what_the_model_finds(text: bytes, places: list[int]) -> None:
    """Wherever it is cut, and however broken it is."""
    assert LUA.read(in_pieces(text, places), JSON) == usage_of_json(text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=streams(), places=cuts)
def test_events_tell_what_the_model_finds(text: bytes, places: list[int]) -> None:
    """Every event by itself, whatever stands in the others."""
    assert LUA.read(in_pieces(text, places), EVENTS) == usage_of_events(text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.binary(max_size=300), places=cuts, kind=st.sampled_from([JSON, EVENTS]))
def test_any_bytes_are_read_without_a_fault(text: bytes, places: list[int], kind: str) -> None:
    """What is no answer at all tells little, and the same wherever it is cut."""
    told = LUA.read(in_pieces(text, places), kind)
    assert "fault" not in told
    assert told == (usage_of_json if kind == JSON else usage_of_events)(text)


@st.composite
def named(draw: st.DrawFn) -> bytes:
    """A document that begins with an id, as most answers do, or nearly."""
    rest: dict[str, Any] = draw(st.dictionaries(keys, values, max_size=2))
    value = {draw(st.sampled_from(["id", "id", "ID"])): draw(st.sampled_from(IDS)), **rest}
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\t")]))
    inside = json.dumps(value, separators=spaced)
    around = draw(st.sampled_from(["%s", "%s", " \n%s", "[%s]", '{"a":%s}']))
    return (around % inside).encode()


@st.composite
def started(draw: st.DrawFn) -> bytes:
    """Events of which some begin with an answer that has an id."""
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        fields = draw(st.sampled_from(["", "event: response.created\n", "event: a.delta\n", ": ping\n"]))
        before = draw(
            st.sampled_from(["", '"type":"response.created",', '"usage":null,', '"text":"%s",' % ("x" * 1_000)])
        )
        data = b"{" + before.encode() + b'"response" : ' + draw(st.one_of(named(), documents())) + b"}"
        parts.append(fields.encode() + b"data: " + draw(st.sampled_from([data, b"[DONE]", b"1"])) + b"\n\n")
    return b"".join(parts).replace(b"\n{", b"{")


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.one_of(named(), documents(), broken()), places=cuts)
def test_the_id_of_a_json_answer_is_told_where_it_begins_with_it(text: bytes, places: list[int]) -> None:
    """As its first piece shows; nothing else is looked at, and the numbers are what they are."""
    pieces = [piece for piece in in_pieces(text, places) if piece]
    run = LUA.run(pieces, JSON)
    assert run.id == id_of_json(pieces[0] if pieces else b"")
    assert run.told == usage_of_json(text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.one_of(started(), streams()), places=cuts)
def test_the_id_of_a_stream_is_that_of_its_first_response(text: bytes, places: list[int]) -> None:
    """Whole, it is what the model finds; cut anywhere it is none, or that of one of its events."""
    assert LUA.run([text], EVENTS).id == id_of_events(text)
    run = LUA.run(in_pieces(text, places), EVENTS)
    assert run.id in ids_of_events(text)
    assert run.told == usage_of_events(text)


def find(value: Any, *, in_answer: bool) -> int | None:
    """The largest total of a document, by its parsed value."""
    tops = value if isinstance(value, list) else [value]
    found: list[Any] = []
    for top in (one for one in tops if isinstance(one, dict)):
        found += [top.get("usage"), top.get("usageMetadata")]
        for holder in (top.get(name) for name in ("message", "response", "x_groq")):
            found += [holder.get("usage"), holder.get("usageMetadata")] if isinstance(holder, dict) else []
        choices = top.get("choices")
        found += [one.get("usage") for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
        meta = top.get("meta") if in_answer else None
        found += [meta.get("tokens"), meta.get("billed_units")] if isinstance(meta, dict) else []
    return max((total for one in found if isinstance(one, dict) for total in _totals(one)), default=None)


def _totals(usage: Any) -> Iterator[int]:
    """At any depth of a usage object: details may be nested."""
    inside = usage.items() if isinstance(usage, dict) else enumerate(usage) if isinstance(usage, list) else ()
    for name, value in inside:
        if name == "total_tokens" and type(value) is int and value >= 0:
            yield value
        yield from _totals(value)


simple = st.dictionaries(st.sampled_from(["total_tokens", "x"]), st.one_of(st.integers(-5, 10**6), texts, st.none()))
trees = st.recursive(
    st.one_of(simple, texts, st.integers(-5, 5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(HOLDERS), inner, max_size=4)),
    max_leaves=25,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(value=trees, places=cuts, is_event=st.booleans())
def test_the_total_is_where_a_parser_finds_it(value: Any, places: list[int], is_event: bool) -> None:  # noqa: FBT001
    """The model shares the script's idea of JSON; a parser does not."""
    text = json.dumps(value).encode()
    pieces = in_pieces(b"data: " + text + b"\n\n" if is_event else text, places)
    told = LUA.read(pieces, EVENTS if is_event else JSON)
    assert told.get("total") == find(value, in_answer=not is_event)
