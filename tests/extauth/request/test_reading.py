"""What is read of a body: the table, a plain model beside it, odd bytes, and how long the worst of them take."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, structs

from extauth.reasons import WIRE, Reason
from extauth.request.body import Body, BodyFault
from extauth.request.members import MAX_SHAPE, MAX_SHAPE_CHARACTERS, MAX_SHAPES, SLOW_BYTES, shape_of
from extauth.request.reading import CHOICE_FIELDS, DECIDING, MOST_FIELDS, read_body
from tests.tables.bodies import READ, REFUSED

JSON = "application/json"
MAX_BODY = 4 * 1024 * 1024
LONGEST_S = 2.0
"""Of the reading of any body of 4 MiB: 0.15 s on an idle machine, where tests run beside each other more."""


def meant(row: Body, text: str) -> Body:
    """The row's body with the bytes of the prompt that its text comes to."""
    return structs.replace(row, prompt_bytes=len(text.encode()) - row.media_bytes)


@pytest.mark.parametrize(("name", "text", "body"), READ, ids=[row[0] for row in READ])
def test_what_is_read(name: str, text: str, body: Body) -> None:
    """Each row's text says what the row says."""
    assert read_body(text.encode(), JSON) == meant(body, text), name


@pytest.mark.parametrize(("name", "raw", "reason", "param"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused(name: str, raw: bytes, reason: str, param: str | None) -> None:
    """By a reason and the field's name as it was spelt; a body that is an object is never said to be none."""
    fault = read_body(raw, JSON)
    assert isinstance(fault, BodyFault), name
    assert (fault.reason, fault.param) == (reason, param)
    assert WIRE[fault.reason].status == 400
    assert param is None or f"'{param}'" in fault.message


@pytest.mark.parametrize(
    ("raw", "quoted"),
    [
        (b'{"max_tokens": 0.5}', "0.5."),
        (b'{"max_tokens":"5"}', '"5".'),
        (b'{"n":129}', "129."),
        (b'{"stream":{"a":[]}}', '{"a":[]}.'),
        (b'{"options":{"num_predict":[ 1 ]}}', "[ 1 ]."),
        (b'{"model":["' + b"x" * 100 + b'"]}', '["' + "x" * 22 + "…."),
        ('{"model":["' + "é" * 11 + '模"]}', '["' + "é" * 11 + "…."),
    ],
)
def test_a_wrong_value_is_quoted(raw: bytes | str, quoted: str) -> None:
    """Its beginning, as it came: what is wrong is found by that, and of a key that stands there no secret is shown."""
    fault = read_body(raw.encode() if isinstance(raw, str) else raw, JSON)
    assert isinstance(fault, BodyFault)
    assert fault.message.endswith(f", not {quoted}")


def test_no_secret_of_a_key_is_quoted() -> None:
    """The longest that is told back ends before it."""
    fault = read_body(json.dumps({"stream": f"tk_{'a' * 19}_{'S' * 52}"}).encode(), JSON)
    assert isinstance(fault, BodyFault)
    assert "S" not in fault.message


@pytest.mark.parametrize(
    ("sent", "is_read"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=UTF-8", True),
        ('application/json;charset="utf-8"', True),
        ("application/json; charset=utf-16", False),
        ("application/json, application/json", False),
        ("text/plain", False),
        ("application/vnd.api+json", False),
        ("multipart/form-data; boundary=x", False),
        ("", False),
    ],
)
def test_the_type_of_a_body(sent: str, is_read: bool) -> None:  # noqa: FBT001  a table's column
    """415 quotes what came, and nothing else is said of a body that is JSON."""
    read = read_body(b'{"model":"m"}', sent)
    if is_read:
        assert read == Body("m", 13)
        return
    assert isinstance(read, BodyFault)
    assert read.reason is Reason.BODY_TYPE
    assert (sent.partition("charset=")[2] or sent) in read.message


def test_what_is_kept_of_names_is_bounded() -> None:
    """What names say is found out once; of many or long ones each time, and of few others once there are too many."""
    few, many = dict.fromkeys(["model", "x"], Raw(b"1")), dict.fromkeys(map(str, range(MAX_SHAPE + 1)), Raw(b"1"))
    long = {"z" * MAX_SHAPE_CHARACTERS: Raw(b"1")}
    kept = shape_of(few, DECIDING)
    assert shape_of(few, DECIDING) is kept
    for values in (many, long):
        assert shape_of(values, DECIDING) == shape_of(values, DECIDING)
        assert shape_of(values, DECIDING) is not shape_of(values, DECIDING)
    for number in range(MAX_SHAPES):
        raw = b'{"model":"m","x%d":1}' % number
        assert read_body(raw, JSON) == Body("m", len(raw))
    assert shape_of(few, DECIDING) == kept
    assert shape_of(few, DECIDING) is not kept


@pytest.mark.parametrize("count", [1, MAX_SHAPE + 1])
def test_a_misspelt_name_is_refused_each_time(count: int) -> None:
    """Whether or not it is kept what such names say; and where Envoy may have altered one, by what it handed over."""
    others = {f"y{number}": 1 for number in range(count)}
    for _ in range(2):
        misspelt = read_body(json.dumps({"Model": "m", **others}).encode(), JSON)
        assert isinstance(misspelt, BodyFault)
        assert misspelt.reason is Reason.FIELD_MISSPELT
        altered = json.dumps({"mo!del": "m", **others}).encode()
        assert isinstance(read_body(altered, JSON, is_text=True), BodyFault)
        assert read_body(altered, JSON) == Body(prompt_bytes=len(altered))


def test_a_text_in_which_bytes_may_have_been_replaced() -> None:
    """Envoy Gateway hands bodies over as text: a name with "!" may be another to the model's server; a value is not."""
    fault = read_body(b'{"mo!del":"b","model":"a"}', JSON, is_text=True)
    assert isinstance(fault, BodyFault)
    assert "UTF-8" in fault.message
    assert read_body(b'{"x":"Hello!"}', JSON, is_text=True) == Body(prompt_bytes=14)
    assert read_body(b'{"mo!del":"b"}', JSON) == Body(prompt_bytes=14)


# A model of it that uses the standard library alone


class Pairs(list[tuple[str, Any]]):
    """An object with all its members, in order."""


def expected(text: str) -> Body | tuple[str, str | None]:
    """What the body is to be read as, or the reason and the field."""
    body = json.loads(text, object_pairs_hook=Pairs, parse_int=lambda digits: int(digits[:30]))
    names = [name for name, _ in body]
    for name in dict.fromkeys(names):
        if name in DECIDING and names.count(name) > 1:
            return "field_repeated", name
        if name not in DECIDING and name.casefold() in DECIDING:
            return "field_misspelt", name
    fields = {name: value for name, value in body if value is not None}
    for name in ("model", *MOST_FIELDS, *CHOICE_FIELDS, "stream", "background"):
        if name in fields and not fits(name, fields[name]):
            return "field_invalid", name
    bounds = [int(min(fields[name], 10**9)) for name in MOST_FIELDS if name in fields]
    return Body(
        model=fields.get("model", ""),
        prompt_bytes=len(text.encode()),
        max_tokens=max(bounds) if bounds and min(bounds) >= 0 else None,
        choices=max(int(fields.get(name, 1)) for name in CHOICE_FIELDS),
        stream=fields.get("stream", False),
        background=fields.get("background", False),
    )


def fits(name: str, value: Any) -> bool:
    """Whether a field has a value that it may have."""
    if name in {"stream", "background"}:
        return isinstance(value, bool)
    if name == "model":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value == -math.inf:
        return False
    if name in CHOICE_FIELDS:
        return 1 <= value <= 128 and value == int(value)
    return value == math.inf or (value == int(value) and value >= -2)


_names = st.sampled_from(
    ["model", "Model", *MOST_FIELDS, *CHOICE_FIELDS, "stream", "background", "N", "x", "", "é", 'a"b', "a\\", "k" * 300]
)
_values = (
    st.none() | st.booleans() | st.integers(-3, 200) | st.integers() | st.floats() | st.text()
    | st.sampled_from(["m", 10**9, 10**9 + 1, [{"model": "b", "n": 1}], {"k": [1, {"n": 2}]}, 1e300])
)  # fmt: skip
_members = st.lists(st.tuples(_names, _values), max_size=6)
_spaces = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@settings(max_examples=2_000)
@given(members=_members, spaces=st.tuples(_spaces, _spaces, _spaces), is_ascii=st.booleans())
def test_a_plain_model_agrees(members: list[tuple[str, Any]], spaces: tuple[str, str, str], *, is_ascii: bool) -> None:
    """Doubled names, every kind of value, NaN, any spacing and escaping: read as the standard library would have it."""
    one, two, three = spaces

    def written(value: Any) -> str:
        return json.dumps(value, ensure_ascii=is_ascii)

    text = f"{{{one}" + f"{two},{one}".join(f"{written(name)}{three}:{two}{written(value)}" for name, value in members)
    text += f"{three}}}{one}"
    read = read_body(text.encode(errors="ignore"), JSON)
    got = (read.reason.value, read.param) if isinstance(read, BodyFault) else read
    assert got == expected(text.encode(errors="ignore").decode())


@settings(max_examples=2_000)
@given(raw=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0061nultre1-.eE model\n', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Nothing is raised; what the standard library refuses is refused."""
    read = read_body(raw, JSON)
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except ValueError:
        value = None
    assert isinstance(read, BodyFault) or isinstance(value, dict)
    if not isinstance(value, dict):
        assert isinstance(read, BodyFault)
        assert read.reason is Reason.BODY_NOT_JSON


N = MAX_BODY
BOMBS: dict[str, bytes] = {
    "numbers": b'{"x":[' + b"1," * (N // 2 - 8) + b"1]}",
    "objects": b'{"x":[' + b"{}," * (N // 3 - 8) + b"{}]}",
    "texts": b'{"input":[' + b'"",' * (N // 3 - 8) + b'""]}',
    "arrays": b'{"input":[' + b"[]," * (N // 3 - 8) + b"[]]}",
    "parts": b'{"messages":[{"content":[{"image_url":1}' + b",{}" * (N // 3 - 30) + b"]}]}",
    "deep arrays": b'{"x":' + b"[" * (N // 2 - 8) + b"]" * (N // 2 - 8) + b"}",
    "deep objects": b'{"x":' + b'{"a":' * (N // 6 - 8) + b"1" + b"}" * (N // 6 - 8) + b"}",
    "a long name": b'{"' + b"k" * (1024 * 1024) + b'": 1}',
    "a name of escapes": b'{"' + b"\\n" * (512 * 1024) + b'": 1}',
    "100,000 names": b"{" + b",".join(b'"k%d":1' % one for one in range(100_000)) + b"}",
    "names to the end": b"{" + b",".join(b'"k%d":1' % one for one in range(350_000)) + b"}",
    "one name always": b"{" + b",".join([b'"k":1'] * 600_000) + b"}",
    "usage always": b'{"x":{' + b'"usage":null,' * (N // 13 - 8) + b'"a":1}}',
    "ids of nothing": b'{"x":{' + b'"file_id":null,' * (N // 15 - 8) + b'"a":1}}',
    "escaped letters": b'{"x":"' + b"\\u0061" * (N // 6 - 8) + b'"}',
    "escaped quotation marks": b'{"x":"' + b'\\"' * (N // 2 - 8) + b'"}',
    "spaces": b'{"x":' + b" " * (N - 20) + b"1}",
    "NaN before objects": b'{"x":NaN,"y":[' + b"{}," * (SLOW_BYTES // 3 - 20) + b"{}]}",
    "NaN in a large one": b'{"x":NaN,"y":[' + b"{}," * (N // 3 - 20) + b"{}]}",
    "a large image": b'{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,'
    + b"A" * (N - 90)
    + b'"}}]}]}',
    "a large model": b'{"model":"' + b"m" * (N - 20) + b'"}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_the_worst_bodies_take_a_bounded_time(name: str) -> None:
    """Whatever a body of 4 MiB is made of; docs/decisions/0028 has the measured times."""
    begun = time.process_time()
    read = read_body(BOMBS[name], JSON)
    assert time.process_time() - begun < LONGEST_S
    assert isinstance(read, Body | BodyFault)
