"""Compressed bodies: what comes out, what is refused, and who may send them. Pure."""

from __future__ import annotations

import gzip
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import pytest
from backports import zstd
from gatebench import question
from hypothesis import given
from hypothesis import strategies as st

from catalog.records import UNLIMITED, ModelType, Protocol, PublicationRecord
from extauth.answers.answers import denial
from extauth.answers.refusal_log import RefusalLog
from extauth.batches.bodies import read_posted
from extauth.edge import AnswerEncoder, CheckService
from extauth.reasons import Reason
from extauth.request.body import UNREAD, Body, BodyFault
from extauth.request.call import Call
from extauth.request.openai import openai_fault
from extauth.request.packed import MOST_BYTES, MOST_RATIO, ROUTE_BYTES, SMALL_BYTES, PackedError, unpacked, weights_of
from runtime.clock import SystemClock
from runtime.grpc.front import Incoming, QueueLimits
from runtime.grpc.large import LargeCalls

PACKS = {"gzip": gzip.compress, "zstd": zstd.compress}
CHAT = b'{"model":"llm","messages":[]}'
LLM = PublicationRecord(
    "uid", "tenant-a", "llm", "", ModelType.OPENAI, Protocol.OPENAI, "h", "/models/llm", UNLIMITED,
    True, ("tenant-a",), "", 0, 0, allowed_endpoints=("custom",),
)  # fmt: skip


def call(encoding: str, raw: bytes = CHAT, *, unpacks: bool = True, **fields: str) -> Call:
    """A call of the model's own URL."""
    given = {"path": "/models/llm/chat/completions", "content_type": "application/json"} | fields
    return Call("key", None, "uid", "", "POST", raw=raw, content_encoding=encoding, unpacks=unpacks, **given)


@given(st.binary(max_size=SMALL_BYTES), st.sampled_from(list(PACKS)))
def test_what_was_packed_comes_out(body: bytes, encoding: str) -> None:
    """As it was."""
    assert unpacked(PACKS[encoding](body), encoding) == body


@given(st.binary(max_size=2_000), st.sampled_from(list(PACKS)))
def test_any_bytes_are_unpacked_or_refused(raw: bytes, encoding: str) -> None:
    """By no other error."""
    try:
        unpacked(raw, encoding)
    except PackedError as error:
        assert "The body " in str(error)  # noqa: PT017  it may be unpacked as well


@pytest.mark.parametrize("encoding", PACKS)
def test_bounds(encoding: str) -> None:
    """By size and by ratio: the last that passes, and the first that does not."""
    pack = PACKS[encoding]
    half = os.urandom(MOST_BYTES // 2).hex().encode()
    assert len(unpacked(pack(half), encoding)) == MOST_BYTES
    for body in (half + b"0", b"a" * (SMALL_BYTES + 1), b"a" * 10**8):
        with pytest.raises(PackedError, match="too tightly"):
            unpacked(pack(body), encoding)
    assert len(pack(b"a" * 10**8)) * MOST_RATIO < 10**8


@pytest.mark.parametrize("encoding", PACKS)
def test_a_bomb_takes_no_longer_than_what_it_may_hold(encoding: str) -> None:
    """A hundred megabytes of nothing: it is left at the bound."""
    bomb = PACKS[encoding](b"a" * 10**8)
    began = time.thread_time()
    with pytest.raises(PackedError):
        unpacked(bomb, encoding)
    assert time.thread_time() - began < 0.2


def test_what_is_read_slowly_is_bounded() -> None:
    """What came packed is cheap to send, so the standard library reads little of it; of what came plain more."""
    filling = os.urandom(SMALL_BYTES).hex().encode()

    def odd(size: int, begin: bytes, end: bytes) -> bytes:
        return begin + filling[: size - len(begin) - len(end)] + end

    good = odd(SMALL_BYTES, b'{"model":"llm","x":"', b'","y":NaN}')
    assert isinstance(read_posted(call("gzip", gzip.compress(good)).posted(), LLM.path), Body)
    for bad in (
        odd(SMALL_BYTES + 1, b'{"model":"llm","x":"', b'","y":NaN}'),
        odd(SMALL_BYTES + 1, b'{"model":"llm","x":"', b'","y":"\\ud800"}'),
        odd(SMALL_BYTES + 100, b'{"model":"llm","options":{"num_predict":1,"num_predict":1,"x":"', b'"}}'),
    ):
        assert len(bad) > SMALL_BYTES
        for encoding, pack in PACKS.items():
            fault = read_posted(call(encoding, pack(bad)).posted(), LLM.path)
            assert isinstance(fault, BodyFault)
            assert fault.reason is Reason.BODY_NOT_JSON
            assert str(SMALL_BYTES) in fault.message
        plain = read_posted(call("", bad).posted(), LLM.path)
        assert not isinstance(plain, BodyFault) or plain.reason is Reason.FIELD_REPEATED


def packed_question(body: bytes, **route: str) -> bytes:
    """What Envoy asks of a call whose body it unpacks."""
    asked = question(openai_host="models.example", headers={"content-encoding": "gzip"})
    asked.attributes.request.http.raw_body = body
    asked.attributes.route_metadata_context.filter_metadata["tollkeeper"].update({"unpacks": "yes"} | route)
    return asked.SerializeToString()


class Turns:
    """What ``answer`` of the service is given, with nothing behind it; the rest is the service's own."""

    max_batch = 1_000

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self._service = CheckService(
            lambda _calls, _deadline_ms: [],
            lambda _verdicts, _spent_ms: None,
            lambda: self.max_batch,
            SystemClock(),
            refusals=RefusalLog(lambda: 0.0, lambda _call: "", lambda _reason: None),
            release=lambda _reservation: None,
            encoder=AnswerEncoder(lambda _call: pytest.fail("no probe")),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def answer(self, payloads: Sequence[bytes], _deadline_ms: float) -> Sequence[bytes]:
        """Say nothing."""
        self.turns.append([len(one) for one in payloads])
        return [b""] * len(payloads)


def test_packed_bodies_stand_in_front_of_no_small_call() -> None:
    """They weigh what may come out: eight of 31 KB that hold a megabyte each are answered one a turn, after others."""
    service, large = Turns(), LargeCalls(SystemClock(), QueueLimits())
    plain = question(openai_host="models.example").SerializeToString()
    packed = packed_question(os.urandom(31_000), host="h" * 253)
    calls = [Incoming(number, packed, math.inf) for number in range(8)] + [Incoming(8, plain, math.inf)]
    assert [one.call_id for one in large.keep(service, calls, lambda *_: True)] == [8]
    while large:
        large.answer_next(lambda *_: True)
    assert service.turns == [[len(packed)]] * 8


def test_a_question_weighs_what_may_come_out() -> None:
    """By the bounds of unpacking; without the route's word its length, whatever the body says."""
    for size in (0, 100, 31_000, MOST_BYTES, 2 * MOST_BYTES):
        packed = packed_question(os.urandom(size))
        assert weights_of([packed]) == [max(len(packed), min(MOST_BYTES, max(SMALL_BYTES, MOST_RATIO * len(packed))))]
    asked = question(openai_host="models.example", headers={"content-encoding": "gzip", "x-word": "unpacks"})
    asked.attributes.request.http.raw_body = b"unpacks" + b" " * ROUTE_BYTES
    plain = asked.SerializeToString()
    assert weights_of([plain, b""]) == [len(plain), 0]


def test_it_is_read_as_the_body_that_it_holds() -> None:
    """Also what is wrong with it, and what it costs: by what comes out."""
    for encoding, pack in PACKS.items():
        posted = call(encoding, pack(CHAT)).posted()
        assert read_posted(posted, LLM.path) == Body("llm", len(CHAT))
        fault = read_posted(call(encoding, pack(b'{"model":"llm","Model":"x"}')).posted(), LLM.path)
        assert isinstance(fault, BodyFault)
        assert fault.param == "Model"


@pytest.mark.parametrize(
    ("one", "accepts"),
    [
        (call("gzip", unpacks=False), "identity"),
        (call("zstd", unpacks=False), "identity"),
        (call("br"), "gzip, zstd"),
        (call("gzip, gzip"), "gzip, zstd"),
        (call("gzip", path="/models/llm/custom", content_type="text/plain"), "gzip, zstd"),
        (call("gzip", path="/models/llm/custom", content_type=""), "gzip, zstd"),
        (call("gzip"), None),
        (call("zstd", path="/models/llm/custom"), None),
        (call("identity", unpacks=False), None),
    ],
)
def test_who_may_send_it(one: Call, accepts: str | None) -> None:
    """Where the proxy unpacks too, what must be JSON or says so; all else is told what would do."""
    fault = openai_fault(one, LLM, is_alone=True)
    if accepts is None:
        assert fault is UNREAD
        return
    assert isinstance(fault, BodyFault)
    answer = denial(fault.reason, fault=fault)
    assert (fault.reason, answer.status) == (Reason.BODY_ENCODED, 415)
    assert {("accept-encoding", accepts), ("x-should-retry", "false")} <= {*answer.headers}
    assert repr(one.content_encoding) in fault.message
