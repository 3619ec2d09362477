"""Refusals of calls that nobody has looked at: too many at once, a fault of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from gatebench import HOST, question

from extauth.answers.refusal_log import RefusalLog
from extauth.edge import AnswerEncoder, CheckService
from extauth.question import read_question
from extauth.request.call import Asking
from extauth.verdict import Verdict
from protos.external_auth_pb2 import CheckResponse
from runtime.clock import SystemClock

ID = "5c2f1a06-4f57-4f0e-8f7b-0a1d4c9a77aa"


def service(read: Callable[[bytes], Asking | None] = read_question) -> CheckService:
    """A service that fails at every call."""

    def check(_calls: Sequence[Asking], _deadline_ms: float) -> list[Verdict]:
        raise RuntimeError("broken")

    return CheckService(
        check,
        lambda _verdicts, _spent_ms: None,
        lambda: 1,
        SystemClock(),
        refusals=RefusalLog(lambda: 0.0, lambda _call: "", lambda _reason: None),
        release=lambda _hold: None,
        encoder=AnswerEncoder(lambda _call: pytest.fail("no probe")),
        read=read,
    )


def asked(path: str) -> bytes:
    """A question about a POST there."""
    made = question(openai_host=HOST, model="llm")
    made.attributes.request.http.path = path
    made.attributes.request.http.headers["x-request-id"] = ID
    return made.SerializeToString()


def told(answer: bytes) -> Any:
    """Its body."""
    return json.loads(CheckResponse.FromString(answer).denied_response.body)


def test_too_many_at_once() -> None:
    """Each in its own words: Anthropic's clients wait for an overloaded API."""
    said = told(service().overloaded(asked("/v1/messages?beta=true")))
    assert (said["error"]["type"], said["error"]["details"]["error_code"]) == ("overloaded_error", "overloaded")
    assert said["request_id"] == ID
    assert told(service().overloaded(asked("/v1/chat/completions")))["error"]["code"] == "overloaded"


def test_a_fault_of_ours() -> None:
    """Also where reading is what fails: then nobody knows whose words to use."""
    messages, chat = service().answer([asked("/v1/messages"), asked("/v1/chat/completions")], 0.0)
    assert (told(messages)["error"]["type"], told(chat)["error"]["code"]) == ("api_error", "internal_error")

    def broken(_payload: bytes) -> Asking | None:
        raise RuntimeError("broken")

    (answer,) = service(broken).answer([asked("/v1/messages")], 0.0)
    assert told(answer)["error"]["code"] == "internal_error"
