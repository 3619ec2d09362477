"""Compressed bodies: what comes out, what is refused, and who may send them. Pure."""

from __future__ import annotations

import gzip
import os
import time

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from catalog.records import UNLIMITED, ModelType, Protocol, PublicationRecord
from extauth.answers.answers import denial
from extauth.batches.bodies import read_posted
from extauth.reasons import Reason
from extauth.request.body import UNREAD, Body, BodyFault
from extauth.request.call import Call
from extauth.request.openai import openai_fault
from extauth.request.packed import MOST_BYTES, MOST_RATIO, SMALL_BYTES, PackedError, unpacked

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
