"""What the gate says in Anthropic's words: types of errors, what stays visible of ours, moments."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from catalog.records import ModelType
from extauth.answers.answers import denial, limit_headers
from extauth.dialects.anthropic import error_type, moment, whole_at
from extauth.reasons import WIRE, Outcome, Reason
from extauth.request.body import BodyFault
from ratelimit.windows.budgets import Answer, Budget, Charge, Draw, Grant, Subject, Window

NOW_MS = 1_800_000_000_000
ID = "5c2f1a06-4f57-4f0e-8f7b-0a1d4c9a77aa"
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
}


@pytest.mark.parametrize("status", TYPES)
def test_the_type_follows_from_the_status(status: int) -> None:
    """As Anthropic's API has them (its page on errors); what we cannot do at the moment is an error of the API's."""
    assert error_type(status, "code") == TYPES[status]
    assert error_type(503, "overloaded") == "overloaded_error"


@pytest.mark.parametrize("reason", [reason for reason in Reason if WIRE[reason].outcome is not Outcome.ALLOWED])
def test_every_refusal_has_anthropics_shape_and_our_reason(reason: Reason) -> None:
    """The same status, headers, message, code and reason as in OpenAI's shape, and the call's id in both places."""
    plain, said = denial(reason), denial(reason, request_id=ID)
    error, body = json.loads(plain.body)["error"], json.loads(said.body)
    assert (said.status, said.headers) == (plain.status, [*plain.headers, ("request-id", ID)])
    assert {*body} == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", ID)
    assert {*body["error"]} == {"type", "message", "details"}
    assert (body["error"]["type"], body["error"]["message"]) == (
        error_type(plain.status, error["code"]),
        error["message"],
    )
    assert body["error"]["details"]["error_code"] == error["code"]
    assert body["error"]["details"]["reason"] == error["reason"]
    assert None not in body["error"]["details"].values()


def test_a_refused_body_says_its_field() -> None:
    """The code and the field of the fault, and no word of what is null."""
    fault = BodyFault(Reason.FIELD_INVALID, "'max_tokens' must be …", "max_tokens", "invalid_max_tokens")
    error = json.loads(denial(fault.reason, fault=fault, request_id=ID).body)["error"]
    assert error["message"] == fault.message
    assert error["details"] == {
        "error_code": "invalid_max_tokens",
        "param": "max_tokens",
        "reason": "field_invalid",
    }


def test_a_call_without_an_id_is_refused_all_the_same() -> None:
    """An Envoy of one's own may give none: null, and no header."""
    said = denial(Reason.KEY_MISSING, request_id="")
    assert json.loads(said.body)["request_id"] is None
    assert "request-id" not in dict(said.headers)


def test_a_full_budget_says_limits_and_moments() -> None:
    """Requests and tokens: the limit, what is left, and when it is whole (RFC 3339, rounded up); when to come again."""
    subject = Subject("k:1", (Budget(Window.MINUTE, 5), Budget(Window.TOKENS_HOUR, 1_000)))
    numbers = (5, NOW_MS + 7_001, 400, NOW_MS + 3_599_000)
    grant = Grant(Answer.REFUSED, Draw(Charge((subject,))), numbers, place=1, retry_at_ms=NOW_MS + 7_001)
    said = denial(Reason.LIMITED, grant=grant, now_ms=NOW_MS, model_type=ModelType.OPENAI, request_id=ID)
    headers, details = dict(said.headers), json.loads(said.body)["error"]["details"]
    assert headers["retry-after"] == "8"
    assert headers["retry-after-ms"] == "7001"
    assert headers["anthropic-ratelimit-requests-limit"] == "5"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert headers["anthropic-ratelimit-requests-reset"] == "2027-01-15T08:00:08Z"
    assert headers["anthropic-ratelimit-tokens-limit"] == "1000"
    assert headers["anthropic-ratelimit-tokens-remaining"] == "600"
    assert headers["anthropic-ratelimit-tokens-reset"] == "2027-01-15T08:59:59Z"
    assert headers["x-ratelimit-remaining"] == "0"
    assert "ratelimit-policy" in headers
    assert not [name for name in headers if name.startswith("x-ratelimit-remaining-")]
    assert (details["error_code"], details["level"], details["budget"]) == ("rate_limit_exceeded", "key", "key-minute")
    assert (details["retry_after_ms"], details["limit"], details["remaining"]) == (7_001, 5, 0)


def test_a_tenants_budgets_are_its_own_business() -> None:
    """In no header of Anthropic's either."""
    subject = Subject("t:1", (Budget(Window.MINUTE, 5),))
    grant = Grant(Answer.ADMITTED, Draw(Charge((subject,))), (1, NOW_MS))
    assert limit_headers(grant.states, NOW_MS, ModelType.OPENAI, is_anthropic=True) == []


def test_moments() -> None:
    """Whole seconds, rounded up; a budget that is whole is so now, not at the beginning of time."""
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert whole_at(0, NOW_MS) == whole_at(NOW_MS - 1, NOW_MS) == "2027-01-15T08:00:00Z"
    assert whole_at(NOW_MS + 1, NOW_MS) == "2027-01-15T08:00:01Z"
    assert datetime.fromisoformat(whole_at(NOW_MS + 1, NOW_MS)) == datetime.fromtimestamp(NOW_MS // 1000 + 1, UTC)
