"""Anthropic's own client, as people install it, against the whole machine: what works, and how it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from clients import client_family
from messagesserver import ANSWER_TOKENS, COUNTED, USAGE, WORDS
from upmachine import UpMachine, until

from tests.e2e.anthropicground import ALIAS, MODEL, AnthropicGround, anthropic_ground

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TEXT = "".join(WORDS)
REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
COST = sum(USAGE.values()) + ANSWER_TOKENS


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[AnthropicGround]:
    """The models, published."""
    client_family("anthropic")
    with anthropic_ground(up, "anthropic-sdk") as made:
        yield made


@pytest.fixture(scope="module")
def said(ground: AnthropicGround) -> Any:
    """What the script's steps said; it is run once."""
    variables = {
        "BASE": ground.base,
        "KEY": ground.key(),
        "WRONG": "tk_nonsense",
        "SLOW": ground.key(burstLimit=1),
        "LONG": ground.key(requestsPerHour=1),
        "SMALL": ground.key("small"),
        "MODEL": ALIAS,
    }
    return client_family("anthropic").run("calls.py", timeout_s=100, **variables)


def test_messages(said: Any) -> None:
    """By ``x-api-key`` and by a bearer token; usage as the server told it; the id that our log has."""
    text, by_bearer, usage, request_id = said["create"]
    assert (text, by_bearer, usage) == (TEXT, TEXT, [*USAGE.values(), ANSWER_TOKENS])
    assert REQUEST_ID.fullmatch(request_id)


def test_streams_and_the_asynchronous_client(said: Any) -> None:
    """Piece by piece, with the usage at the end."""
    pieces, tokens, request_id = said["stream"]
    assert (pieces, tokens) == ([*WORDS], ANSWER_TOKENS)
    assert REQUEST_ID.fullmatch(request_id)
    text, pieces, listed, refused = said["by_async"]
    assert (text, pieces, listed) == (TEXT, [*WORDS], said["listed"][0])
    assert refused[0] == "not_found_error"
    assert REQUEST_ID.fullmatch(refused[1])


def test_counting_tokens(said: Any, ground: AnthropicGround) -> None:
    """Also by the beta, whose header reaches the server, as each call's version does."""
    assert said["count"] == [COUNTED, COUNTED]
    beta, plain = (one for one in ground.server.heard if one.target.startswith("/v1/messages/count_tokens"))
    assert "token-counting-2024-11-01" in beta.headers["anthropic-beta"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", plain.headers["anthropic-version"])
    assert beta.headers["anthropic-version"] == plain.headers["anthropic-version"]


@pytest.mark.usefixtures("said")
def test_the_server_hears_its_own_name_and_no_key(ground: AnthropicGround) -> None:
    """Whatever was said for the model, and by whatever header the key came."""
    for heard in ground.server.heard:
        assert heard.body["model"] == MODEL
        assert not {"x-api-key", "authorization"} & {*heard.headers}


def test_models(said: Any) -> None:
    """Page by page, backwards, and one alone; each name that the body may say."""
    names, back, one = said["listed"]
    assert names == ["away", MODEL, ALIAS, "small"]
    assert back == [ALIAS, MODEL, "away"]
    kind, name, display_name, created_at, lifecycle = one
    assert (kind, name, display_name, lifecycle) == ("model", "away", "away", "active")
    assert datetime.fromisoformat(created_at).tzinfo is not None


def test_limits_are_told_in_its_headers(said: Any) -> None:
    """Numbers, and moments by RFC 3339."""
    headers = said["headers"]
    for what in ("requests", "tokens"):
        limit, left = (int(headers[f"anthropic-ratelimit-{what}-{name}"]) for name in ("limit", "remaining"))
        assert 0 < left < limit
        assert datetime.fromisoformat(headers[f"anthropic-ratelimit-{what}-reset"]).tzinfo is not None
    assert not [name for name in headers if name.startswith("x-ratelimit-limit-")]


@pytest.mark.parametrize(
    ("step", "error", "status", "kind", "code"),
    [
        ("wrong_key", "AuthenticationError", 401, "authentication_error", "invalid_api_key"),
        ("wrong_key_lists", "AuthenticationError", 401, "authentication_error", "invalid_api_key"),
        ("unknown", "NotFoundError", 404, "not_found_error", "model_not_found"),
        ("unknown_card", "NotFoundError", 404, "not_found_error", "model_not_found"),
        ("unknown_page", "BadRequestError", 400, "invalid_request_error", "invalid_after_id"),
        ("not_allowed", "PermissionDeniedError", 403, "permission_error", "model_not_allowed"),
        ("bad_field", "BadRequestError", 400, "invalid_request_error", "invalid_n"),
        ("too_dear", "BadRequestError", 400, "invalid_request_error", "exceeds_limit"),
        ("used_up", "RateLimitError", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("batches", "BadRequestError", 400, "invalid_request_error", "model_required"),
        ("files", "BadRequestError", 400, "invalid_request_error", "model_required"),
        ("too_large", "ContentTooLargeError", 413, "request_too_large", "request_too_large"),
        ("server_away", "ServiceUnavailableError", 503, "api_error", "upstream_unavailable"),
        ("twice_v1", "PermissionDeniedError", 403, "permission_error", "endpoint_not_allowed"),
    ],
)
def test_refusals_are_what_the_client_knows(
    said: Any, step: str, error: str, status: int, kind: str, code: str
) -> None:
    """Its exception, its type of error, our code as its own, and the call's id; also where Envoy itself answers."""
    told = said[step]
    assert (told["error"], told["status"], told["type"], told["code"]) == (error, status, kind, code)
    assert told["body"]["type"] == "error"
    assert told["request_id"] == told["body"]["request_id"] == told["x_request_id"]
    assert REQUEST_ID.fullmatch(told["request_id"])


def test_a_full_budget_says_when(said: Any) -> None:
    """In seconds, and with what is left of which budget."""
    told = said["used_up"]
    details = told["body"]["error"]["details"]
    assert 3_590 < int(told["retry_after"]) < 3_700
    assert (details["reason"], details["budget"], details["remaining"]) == ("limited", "key-hour", 0)


def test_the_client_waits_by_itself(said: Any) -> None:
    """For as long as the refusal said, and is answered then."""
    text, spent_s = said["waited"]
    assert text == TEXT
    assert 0.5 < spent_s < 15


def test_a_base_url_that_ends_with_v1_is_explained(said: Any) -> None:
    """The client adds it by itself."""
    assert "add '/v1' by themselves" in said["twice_v1"]["message"]


@pytest.mark.usefixtures("said")
def test_cached_tokens_are_charged_as_the_prompt_they_are_of(ground: AnthropicGround) -> None:
    """What the cache served and took in, which Anthropic's ``input_tokens`` leave out, as OpenAI's leave it in."""
    answered = [one for one in ground.server.heard if one.target.partition("?")[0] == "/v1/messages"]
    assert until(lambda: ground.tokens_used() == len(answered) * COST, 20), (ground.tokens_used(), len(answered))
