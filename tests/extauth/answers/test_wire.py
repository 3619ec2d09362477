"""Answers put together from bytes are what protobuf would make of the same, and say what the plain form says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.records import ModelType
from extauth.answers.amended import amended
from extauth.answers.answers import Denial, Headers, limit_headers
from extauth.answers.denied import PERMISSION_DENIED, denied_answer
from extauth.answers.requested import ANYBODYS, named_in, requested
from extauth.answers.shared import reservation_of, shared_answer
from extauth.answers.shown import OK_RESPONSE, shown_of
from extauth.answers.wire import field, header, header_slot, varint
from extauth.reasons import Reason
from protos.core_pb2 import HeaderValueOption
from protos.external_auth_pb2 import CheckResponse, OkHttpResponse
from ratelimit.windows.budgets import Answer, Budget, Charge, Draw, Grant, Subject, Window

NOW_MS = 1_800_000_000_000
WINDOWS = [Window.SECOND, Window.MINUTE, Window.HOUR, Window.TOKENS_HOUR]
_units = st.integers(0, 10**9)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@st.composite
def _grants(draw: st.DrawFn) -> Grant:
    """Any budgets on any levels to which admitted calls are held, and any numbers of them."""
    prefixes = draw(st.lists(st.sampled_from(["k:", "t:", "p:", "a:"]), max_size=4, unique=True))
    subjects = tuple(
        Subject(
            f"{prefix}id",
            tuple(
                Budget(window, draw(st.integers(1, 10**9)))
                for window in draw(st.lists(st.sampled_from(WINDOWS), max_size=4, unique=True))
            ),
        )
        for prefix in prefixes
    )
    charge = Charge(subjects)
    waits = st.one_of(st.just(-NOW_MS), st.integers(-5_000, 3_700_000))
    numbers = tuple(
        number for _ in charge.budgets for number in (draw(_units), NOW_MS + draw(waits))
    )  # 0: the budget is whole
    return Grant(Answer.ADMITTED, Draw(charge), numbers)


@settings(deadline=None)
@given(grant=_grants(), model_type=st.sampled_from(list(ModelType)))
def test_limits_as_bytes_are_the_plain_headers(grant: Grant, model_type: ModelType) -> None:
    """The same headers in the same order, and the same bytes."""
    told = shown_of(grant.draw.charge, is_openai=model_type is ModelType.OPENAI).told(grant.numbers, NOW_MS)
    expected = CheckResponse()
    for name, value in limit_headers(grant.states, NOW_MS, model_type):
        option = expected.ok_response.response_headers_to_add.add()
        option.header.key, option.header.value = name, value
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert told == expected.SerializeToString()


@settings(deadline=None)
@given(grant=_grants())
def test_limits_in_anthropics_words_are_the_plain_headers(grant: Grant) -> None:
    """The gateway's own headers as everywhere, Anthropic's in the place of OpenAI's."""
    told = shown_of(grant.draw.charge, is_openai=True, is_anthropic=True).told(grant.numbers, NOW_MS)
    added = CheckResponse.FromString(told).ok_response.response_headers_to_add
    said = [(option.header.key, option.header.value) for option in added]
    assert sorted(said) == sorted(limit_headers(grant.states, NOW_MS, ModelType.OPENAI, is_anthropic=True))
    assert {option.append_action for option in added} <= {HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD}
    assert not [name for name, _ in said if name.endswith(("-requests", "-tokens"))]


@settings(deadline=None)
@given(request_id=_texts)
def test_a_calls_id_is_what_protobuf_makes(request_id: str) -> None:
    """It is added where the model's server says none."""
    expected = CheckResponse()
    if request_id:
        option = expected.ok_response.response_headers_to_add.add(append_action=HeaderValueOption.ADD_IF_ABSENT)
        option.header.key, option.header.value = "request-id", request_id
    for _ in range(2):  # prepared, and as prepared
        assert requested(request_id) == expected.SerializeToString()


@settings(deadline=None)
@given(body=_texts, headers=st.lists(st.tuples(_texts, _texts), max_size=3), request_id=st.uuids().map(str))
def test_a_refusal_of_many_names_each(body: str, headers: Headers, request_id: str) -> None:
    """Wherever the id stands; an id of another length is no id of Envoy's, and takes none's place."""

    def told(which: str) -> bytes:
        return denied_answer(Denial(429, [*headers, ("request-id", which)], body + which), Reason.LIMITED)

    assert named_in(told(ANYBODYS), request_id) == told(request_id)
    for other in ("", request_id[:-1], request_id + "0", "é" * len(request_id)):
        assert named_in(told(ANYBODYS), other) == b""


@settings(deadline=None)
@given(publication=_texts, key=_texts, tenant=_texts, is_openai=st.booleans(), hold=_texts)
def test_what_calls_share_is_what_protobuf_makes(
    publication: str,
    key: str,
    tenant: str,
    is_openai: bool,  # noqa: FBT001  hypothesis gives by name
    hold: str,
) -> None:
    """Headers for the upstream and metadata; the reservation is merged with it, and what is taken off or replaced."""
    expected = CheckResponse()
    told = {"x-tenant-id": tenant, "x-key-id": key} if key else {}
    if is_openai:
        told["x-tollkeeper-publication"] = publication
    for name, value in told.items():
        option = expected.ok_response.headers.add()
        option.header.key, option.header.value = name, value
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    expected.ok_response.SetInParent()
    who = {"key": key, "tenant": tenant} if key else {}
    expected.dynamic_metadata.update({**who, "publication": publication})
    answer = shared_answer(publication, key, tenant, is_chosen=is_openai)
    assert CheckResponse.FromString(answer) == expected
    expected.dynamic_metadata.update({"reservation": hold})
    assert CheckResponse.FromString(answer + reservation_of(hold)) == expected
    expected.ok_response.headers_to_remove.append(key)
    option = expected.ok_response.headers.add(append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    option.header.key, option.header.value = "cookie", tenant
    assert CheckResponse.FromString(answer + amended((key,), {"cookie": tenant}) + reservation_of(hold)) == expected
    assert amended((), {}) == b""


@settings(deadline=None)
@given(number=st.integers(0, 2**31 - 1), name=_texts.filter(bool), value=_texts)
def test_pieces_are_well_formed(number: int, name: str, value: str) -> None:
    """Lengths of one byte and of more; numbers of any length."""
    plain = header(2, name.encode(), value.encode())
    option = OkHttpResponse.FromString(plain).headers[0]
    assert (option.header.key, option.header.value) == (name, value)
    slot = header_slot(2, name.encode(), b"s")
    for _ in range(2):  # prepared, and as prepared
        assert slot.of(b"%d" % number) == header(2, name.encode(), b"%ds" % number)
        assert slot.of(value.encode()) == header(2, name.encode(), value.encode() + b"s")
    assert CheckResponse.FromString(field(OK_RESPONSE, plain)).ok_response.headers[0] == option
    assert CheckResponse.FromString(field(1, b"\x08" + varint(number))).status.code == number


_headers = st.lists(st.tuples(_texts, _texts), max_size=12)


@settings(deadline=None)
@given(status=st.integers(200, 503), headers=_headers, body=_texts, reason=st.sampled_from(list(Reason)))
def test_a_refusal_is_what_protobuf_makes(status: int, headers: Headers, body: str, reason: Reason) -> None:
    """Status, headers, body, and the reason in the metadata."""
    expected = CheckResponse()
    expected.status.code, expected.status.message = PERMISSION_DENIED, reason.value
    expected.dynamic_metadata["reason"] = reason.value
    expected.denied_response.status.code, expected.denied_response.body = status, body
    for name, value in headers:
        option = expected.denied_response.headers.add()
        option.header.key, option.header.value = name, value
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert CheckResponse.FromString(denied_answer(Denial(status, headers, body), reason)) == expected
