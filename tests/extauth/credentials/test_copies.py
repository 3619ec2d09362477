"""Copies of a key in a question: a table of what is taken off, and that none is overlooked."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.keys.keytext import has_form, mint
from catalog.keys.secrets import Secrets
from extauth.credentials.carriers import CREDENTIAL_HEADERS, KEY_HEADERS
from extauth.credentials.copies import NONE, Copies, copies_in
from extauth.question import Question, read_question
from extauth.reasons import Reason
from protos.external_auth_pb2 import CheckRequest, CheckResponse

SECRETS = Secrets({1: b"p" * 32}, 1, {1: b"m" * 32}, 1, jwt_key=b"j" * 32, recovery_key=b"r" * 32)
KEY, OTHER = (mint("007" + "a" * 16, SECRETS, lambda count, byte=byte: byte * count).reveal() for byte in (b"1", b"2"))

ROWS: list[tuple[dict[str, str], str, Copies]] = [
    ({"x-api-key": KEY, "cookie": "a=1; b=2", "user-agent": "curl"}, "/models/m", NONE),
    (dict.fromkeys(CREDENTIAL_HEADERS, KEY), "/models/m", NONE),
    ({"ocp-apim-subscription-key": KEY}, "/models/m", Copies(("ocp-apim-subscription-key",))),
    ({"x-litellm-api-key": f"Bearer {KEY}", "referer": f"http://h/?key={KEY}"}, "/m",
     Copies(("x-litellm-api-key", "referer"))),
    ({"x-a": f"before{KEY}after"}, "/m", Copies(("x-a",))),
    ({"x-a": f"{KEY},{KEY}"}, "/m", Copies(("x-a",))),
    ({"x-a": OTHER}, "/m", Copies(("x-a",))),
    ({"x-a": KEY[:-1]}, "/m", NONE),
    ({"x-a": f"tk_{KEY}"}, "/m", Copies(("x-a",))),
    ({"cookie": f"a=1; token={KEY}; b=2"}, "/m", Copies(cookie="a=1; b=2")),
    ({"cookie": f"a=1;token={KEY};b={KEY}x"}, "/m", Copies(cookie="a=1")),
    ({"cookie": f"token={KEY}"}, "/m", Copies(("cookie",))),
    ({"cookie": f"token={KEY}; "}, "/m", Copies(("cookie",))),
    ({"cookie": KEY}, "/m", Copies(("cookie",))),
    ({"cookie": f"token={KEY}" + ";a" * 200}, "/m", Copies(cookie="; ".join("a" * 200))),
    ({"cookie": f"token={KEY}" + ";a" * 201}, "/m", Copies(("cookie",))),
    ({}, f"/m?key={KEY}", Copies(in_url=True)),
    ({}, f"/m?a=1&api-key={KEY}&b=2", Copies(in_url=True)),
    ({}, f"/m/{KEY}", Copies(in_url=True)),
    ({":path": f"/m?key={KEY}"}, "/m", Copies(in_url=True)),
    ({"x-a": KEY}, f"/m?key={KEY}", Copies(("x-a",), in_url=True)),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "path", "copies"), ROWS)
def test_what_is_done_about_copies(headers: dict[str, str], path: str, copies: Copies) -> None:
    """Headers are removed, crumbs cut out, URLs refused; what ends at the gateway anyhow is left alone."""
    assert copies_in(headers, (path, "host", "POST"), CREDENTIAL_HEADERS) == copies


def question(
    headers: dict[str, str], path: str = "/m", body: bytes = b"", host: str = "h", method: str = "POST"
) -> bytes:
    """A question as plain Envoy asks it."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host, http.raw_body = method, path, host, body
    for name, value in headers.items():
        http.headers[name] = value
    request.attributes.route_metadata_context.filter_metadata["tollkeeper"].update({"publication": "uid"})
    return request.SerializeToString()


def read(payload: bytes, *key_headers: str) -> Question:
    """What the gate reads of it."""
    asked = read_question(payload, "", key_headers or KEY_HEADERS)
    assert asked is not None
    return asked


def test_most_questions_are_not_looked_through() -> None:
    """Nor is a body, whatever stands in it."""
    for headers in (
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"api-key": KEY},
        {},
        {"x-api-key": "other"},
    ):
        assert read(question(headers, body=b"{}")).amended == b""
        asked = read(question(headers, body=f'{{"a": "{KEY}"}}'.encode()))
        assert (asked.amended, asked.key_fault) == (b"", None)


@given(
    st.sampled_from(KEY_HEADERS),
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True) | st.sampled_from(["cookie", *CREDENTIAL_HEADERS]),
        st.tuples(st.text(st.characters(codec="ascii", exclude_characters="\0\r\n"), max_size=20), st.booleans()),
        max_size=8,
    ),
)
def test_no_header_keeps_a_copy(carrier: str, others: dict[str, tuple[str, bool]]) -> None:
    """Whatever stands beside the key, before and behind a copy: what Envoy passes on holds none."""
    sent = {name: f"{text}{KEY if copied else ''}{text[::-1]}" for name, (text, copied) in others.items()}
    sent[carrier] = f"Bearer {KEY}" if carrier == "authorization" else KEY
    asked = read(question(sent))
    assert has_form(asked.api_key) or asked.key_fault is Reason.KEY_REPEATED
    change = CheckResponse.FromString(asked.amended).ok_response
    left = {name: value for name, value in sent.items() if name not in {*CREDENTIAL_HEADERS, *change.headers_to_remove}}
    left |= {option.header.key: option.header.value for option in change.headers}
    assert not [name for name, value in left.items() if KEY in value]
    assert {name for name, value in sent.items() if KEY not in value} - {*CREDENTIAL_HEADERS} <= left.keys()


@pytest.mark.parametrize("asked", [{"path": f"/m?key={KEY}"}, {"host": KEY}, {"method": KEY}])
def test_a_key_in_the_url_is_a_fault_with_a_key_and_without(asked: dict[str, str]) -> None:
    """Nothing of a URL can be taken off."""
    for headers in ({"x-api-key": KEY}, {}, {"x-api-key": "sk-other"}):
        assert read(question(headers, **asked)).key_fault is Reason.KEY_IN_URL


def test_a_large_question_is_looked_through_up_to_its_body() -> None:
    """A copy behind sixty kilobytes of headers, beside a path of as many, is found."""
    sent = {"a": "x" * 60_000, "x-api-key": KEY, "z": KEY}
    assert read(question(sent, path="/" + "x" * 60_000, body=b"x" * 4_000_000)).amended != b""


def test_equal_content_types_are_one() -> None:
    """To us and to the model's server; different ones stay what they are."""
    asked = read(question({"x-api-key": KEY, "content-type": "application/json,application/json"}, body=b"{}"))
    assert asked.read().content_type == "application/json"
    (only,) = CheckResponse.FromString(asked.amended).ok_response.headers
    assert (only.header.key, only.header.value) == ("content-type", "application/json")
    asked = read(question({"x-api-key": KEY, "content-type": "application/json,text/plain"}, body=b"{}"))
    assert (asked.read().content_type, asked.amended) == ("application/json,text/plain", b"")


def test_of_many_content_types_none_is_made_one() -> None:
    """Nobody sends so many; they stay what they are."""
    for times, kind in ((8, "a/b"), (9, ",".join(["a/b"] * 9))):
        asked = read(question({"x-api-key": KEY, "content-type": ",".join(["a/b"] * times)}, body=b"{}"))
        assert asked.read().content_type == kind


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "," * 31_000},
        {"authorization": "Bearer x," * 3_400},
        {"x-api-key": ",tk_" * 7_700},
        {"cookie": f"{KEY}{';' * 31_000}"},
        {"content-type": "," * 31_000},
    ],
    ids=lambda headers: f"{next(iter(headers))} {next(iter(headers.values()))[:9]}",
)
def test_no_number_of_parts_takes_long(headers: dict[str, str]) -> None:
    """What callers without a key may send: one by one they would take 2 to 4 ms."""
    payload = question(headers)
    times = []
    for _ in range(5):
        began = time.thread_time()
        read(payload).posted()
        times.append(time.thread_time() - began)
    assert min(times) < 0.001


def test_an_operators_header_ends_here_too() -> None:
    """One that presents keys, also where it holds somebody else's credential, is removed for every call."""
    asked = read(question({"x-own": KEY, "api-key": "other"}), "x-own", "x-api-key")
    assert (asked.api_key, asked.amended) == (KEY, b"")
