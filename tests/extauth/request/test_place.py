"""The place of a body's model: putting another in it changes what is read of the model, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.answers.rewriting import REWRITE, rewriting
from extauth.request.body import Body
from extauth.request.call import Posted
from extauth.request.members import SLOW_BYTES
from extauth.request.place import place_of_model
from extauth.request.reading import read_body
from protos.external_auth_pb2 import CheckResponse

JSON = "application/json"
FORM = "multipart/form-data; boundary=b-1"

_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.just("model") | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
_names = st.text(min_size=1, max_size=20).filter(lambda text: text == text.encode(errors="ignore").decode())
_pairs = st.lists(st.tuples(st.text(max_size=4).filter(lambda name: name.casefold() != "model"), _values), max_size=4)


def written(pairs: list[tuple[str, Any]], *, escapes: bool, space: str) -> bytes:
    """An object as one of many clients would write it, doubled names and all."""
    members = [
        f"{json.dumps(name, ensure_ascii=escapes)}{space}:{space}{json.dumps(value, ensure_ascii=escapes)}"
        for name, value in pairs
    ]
    return f"{{{space}{f'{space},'.join(members)}{space}}}".encode()


@given(
    before=_pairs,
    after=_pairs,
    model=_names,
    other=_names,
    escapes=st.booleans(),
    space=st.sampled_from(["", " ", "\n\t"]),
)
def test_the_place_is_the_models_alone(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], model: str, other: str, *, escapes: bool, space: str
) -> None:
    """Of every body that is read as good, whatever stands around it."""
    raw = written([*before, ("model", model), *after], escapes=escapes, space=space)
    if not isinstance(read_body(raw, JSON), Body):
        return
    place = place_of_model(raw, JSON)
    assert place is not None
    assert json.loads(raw[place.begin : place.end]) == model
    changed = raw[: place.begin] + json.dumps(other).encode() + raw[place.end :]
    expected = written([*before, ("model", other), *after], escapes=escapes, space=space)
    assert str(json.loads(changed)) == str(json.loads(expected))  # NaN is no NaN


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2,"t":"%s","model":"llm"}' % (b"x" * SLOW_BYTES),
        b'{"t":"%s","x":{"model":1},"model" : "llm"}' % (b"\\u00e9" + b"x" * SLOW_BYTES),
        b'\xef\xbb\xbf{"t":"%s","model":"llm"}' % (b"\xc3\xa9" * SLOW_BYTES),
    ],
)
def test_the_place_is_found_in_a_large_body(raw: bytes) -> None:
    """Whatever of it is read as good."""
    assert isinstance(read_body(raw, JSON), Body)
    place = place_of_model(raw, JSON)
    assert place is not None
    assert raw[place.begin : place.end] == b'"llm"'


def form(*fields: tuple[str, bytes]) -> bytes:
    """A form of these parts' heads and contents."""
    parts = [
        f"--b-1\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in fields
    ]
    return b"".join(parts) + b"--b-1--\r\n"


def test_the_place_of_a_forms_field() -> None:
    """Not of a file of the same content, nor of another field's; no place in what is no form, and in one without it."""
    raw = form(
        ('name="file"; filename="model"', b"llm"), ("name=prompt", b"llm"), ('name="model"', b"llm"), ("name=x", b"llm")
    )
    place = place_of_model(raw, FORM)
    assert place is not None
    assert (raw[: place.begin].count(b"llm"), raw[place.begin : place.end], place.in_json) == (2, b"llm", False)
    assert place_of_model(form(("name=x", b"llm")), FORM) is None
    assert place_of_model(b"--b-1\r\n", FORM) is None
    for bad in (b"", b"[]", b"{}", b'{"Model":"llm"}', b'{"model"'):
        assert place_of_model(bad, JSON) is None


@pytest.mark.parametrize("head", ["name=model\r\nX-Foo:", "name=model\r\nX-Foo: \r\nX-Bar:", 'name="model"\r\nX: y'])
def test_the_place_is_behind_every_header(head: str) -> None:
    """Also behind those that say nothing."""
    raw = form((head, b"llm"))
    place = place_of_model(raw, FORM)
    assert place is not None
    assert raw[place.begin : place.end] == b"llm"


def test_what_envoy_is_told() -> None:
    """The place, the size and the text, as JSON or bare; nothing of a body that was not sent."""
    call = sent(JSON, '{"é":1,"model":"x"}'.encode())
    assert _told(rewriting(call, 'a"é')) == '16 19 20 "a\\"é"'
    raw = form(("name=model", b"x"))
    begin = raw.index(b"x\r\n")
    assert _told(rewriting(sent(FORM, raw), 'a"é')) == f'{begin} {begin + 1} {len(raw)} a"é'
    assert rewriting(sent(JSON, b""), "x") == b""
    assert rewriting(sent(JSON, b"{}"), "x") is None


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (b"{}", b'{"model":"a\xc3\xa9"}'),
        (b'\xef\xbb\xbf \n{ "x":1}', b'\xef\xbb\xbf \n{"model":"a\xc3\xa9", "x":1}'),
        (b'{"x":{"model":1}}', b'{"model":"a\xc3\xa9","x":{"model":1}}'),
        (b'{"model":null,"x":1}', b'{"model":"a\xc3\xa9","x":1}'),
        (b'{"x":1, "model" : "" }', b'{"x":1, "model" : "a\xc3\xa9" }'),
        (b'{"x":"}","mod\\u0065l":null}', b'{"x":"}","mod\\u0065l":"a\xc3\xa9"}'),
        (
            b'{"x":1,"x":2,"t":"%s"}' % (b"x" * SLOW_BYTES),
            b'{"model":"a\xc3\xa9","x":1,"x":2,"t":"%s"}' % (b"x" * SLOW_BYTES),
        ),
    ],
)
def test_a_model_is_added_where_none_is_said(raw: bytes, written: bytes) -> None:
    """Of an own path: in the place of null or nothing, else as the first member; what stands there stays."""
    assert isinstance(read_body(raw, JSON), Body)
    begin, end, size, text = _told(rewriting(sent(JSON, raw), "aé", names_none=True)).split(" ", 3)
    assert int(size) == len(raw)
    assert raw[: int(begin)] + text.encode() + raw[int(end) :] == written
    assert read_body(written, JSON).model == "aé"  # type: ignore[union-attr]


@given(pairs=_pairs, escapes=st.booleans(), space=st.sampled_from(["", " ", "\n\t"]))
def test_a_model_is_added_to_whatever_is_good(pairs: list[tuple[str, Any]], *, escapes: bool, space: str) -> None:
    """Nothing else of it changes."""
    raw = written(pairs, escapes=escapes, space=space)
    if not isinstance(read_body(raw, JSON), Body):
        return
    begin, end, _, text = _told(rewriting(sent(JSON, raw), "aé", names_none=True)).split(" ", 3)
    changed = raw[: int(begin)] + text.encode() + raw[int(end) :]
    assert str(json.loads(changed)) == str({"model": "aé"} | json.loads(raw))


def test_a_form_that_names_no_model_stays_as_it_is() -> None:
    """Only an empty field is filled."""
    assert rewriting(sent(FORM, form(("name=x", b"1"))), "llm", names_none=True) == b""
    raw = form(("name=model", b""))
    begin = raw.index(b"\r\n\r\n") + 4
    assert _told(rewriting(sent(FORM, raw), "llm", names_none=True)) == f"{begin} {begin} {len(raw)} llm"
    assert rewriting(sent(JSON, b""), "llm", names_none=True) == b""


def sent(content_type: str, raw: bytes) -> Posted:
    """A body as it came."""
    return Posted("POST", "/v1/chat/completions", content_type, "", raw, raw_is_text=False, unpacks=False)


def _told(piece: bytes | None) -> str:
    assert piece is not None
    return CheckResponse.FromString(piece).dynamic_metadata.fields[REWRITE].string_value
