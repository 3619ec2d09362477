"""What a body says of a call's cost, what the call then holds back, and what of it the caller is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.records import ModelType
from extauth.answers.answers import denial, limit_headers
from extauth.reasons import Reason
from extauth.request.counts import COUNT_FIELDS, Counts, read_counts
from ratelimit.tokens.costs import MAX_TOKENS
from ratelimit.windows.budgets import Answer, Budget, BudgetState, Grant, Subject, Window

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, Counts()),
        ({"max_tokens": 5.0}, Counts(5)),
        ({"max_tokens": 5, "max_completion_tokens": 9, "max_output_tokens": 7}, Counts(9)),
        ({"max_tokens": None, "max_completion_tokens": 9}, Counts(9)),
        ({"n": 3.0}, Counts(None, 3)),
        ({"max_tokens": 0}, Counts(0)),
        ({"max_tokens": MAX_TOKENS, "n": 16}, Counts(MAX_TOKENS, 16)),
        ({"max_tokens": "9"}, Counts(fault="max_tokens")),
        ({"max_tokens": -1.0}, Counts(fault="max_tokens")),
        ({"max_tokens": 1.5}, Counts(fault="max_tokens")),
        ({"max_tokens": MAX_TOKENS + 1}, Counts(fault="max_tokens")),
        ({"max_tokens": True}, Counts(fault="max_tokens")),
        ({"max_completion_tokens": []}, Counts(fault="max_completion_tokens")),
        ({"max_tokens": 5, "max_output_tokens": float("inf")}, Counts(fault="max_output_tokens")),
        ({"max_tokens": float("nan")}, Counts(fault="max_tokens")),
        ({"n": 0}, Counts(fault="n")),
        ({"n": 17}, Counts(fault="n")),
        ({"n": "2"}, Counts(fault="n")),
    ],
)
def test_counts_are_whole_numbers_within_bounds(fields: dict[str, object], counts: Counts) -> None:
    """The largest bound counts; null says nothing; what one server might read otherwise than we is refused."""
    assert read_counts(fields) == counts


_values = st.none() | st.booleans() | st.text() | st.floats() | st.integers() | st.just([])


@given(fields=st.dictionaries(st.sampled_from(COUNT_FIELDS), _values))
def test_any_body_gives_sane_counts(fields: dict[str, object]) -> None:
    """Whatever stands there: counts within bounds, or the name of a field that is there."""
    counts = read_counts(fields)
    assert counts.fault in {"", *fields}
    assert counts.max_tokens is None or 0 <= counts.max_tokens <= MAX_TOKENS
    assert 1 <= counts.choices <= 16


def _state(name: str, window: Window, limit: int, remaining: int) -> BudgetState:
    return BudgetState(Subject(name, ()), Budget(window, limit), remaining, NOW_MS + 90_000)


def test_token_budgets_have_headers_of_their_own() -> None:
    """OpenAI's names tell calls and tokens apart; X-RateLimit-* is about calls; a tenant's budget is in none."""
    states = [
        _state("k:1", Window.MINUTE, 60, 7),
        _state("k:1", Window.TOKENS_HOUR, 9_000, 3_000),
        _state("t:a", Window.TOKENS_HOUR, 500, 1),
        _state("p:1", Window.TOKENS_HOUR, 100_000, 2_500),
    ]
    headers = dict(limit_headers(states, NOW_MS, ModelType.OPENAI))
    assert headers["x-ratelimit-limit"] == headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert (headers["x-ratelimit-remaining-tokens"], headers["x-ratelimit-reset-tokens"]) == ("2500", "90s")
    assert '"publication-tokens";q=100000;w=3600' in headers["ratelimit-policy"]
    assert "500" not in headers["ratelimit-policy"]


def test_where_nobody_counts_tokens_nothing_tells_of_them() -> None:
    """A key's token budget is no business of a traditional call."""
    headers = dict(limit_headers([_state("k:1", Window.TOKENS_HOUR, 9, 3)], NOW_MS, ModelType.TRADITIONAL))
    assert headers == {}


def test_a_refusal_says_what_the_call_may_cost() -> None:
    """How many tokens it asked for, how many are left, when it fits, and what to change."""
    state = _state("p:1", Window.TOKENS_HOUR, 1_000, 40)
    refused = denial(
        Reason.LIMITED, grant=Grant(Answer.REFUSED, (state,), state, NOW_MS + 90_000), now_ms=NOW_MS, tokens=300
    )
    error = json.loads(refused.body)["error"]
    assert refused.status == 429
    assert (error["budget"], error["tokens"], error["remaining"]) == ("publication-tokens", 300, 40)
    assert "300 tokens" in error["message"]
    assert "'max_tokens'" in error["message"]
    assert ("retry-after", "90") in refused.headers


def test_a_refusal_by_held_tokens_says_that_they_come_back() -> None:
    """How many are held, and that it is worth asking again; of a tenant's budget not how many."""
    told = {}
    for name in ("k:1", "t:a"):
        state = _state(name, Window.TOKENS_HOUR, 12_000, 3_808)
        grant = Grant(Answer.REFUSED, (state,), state, NOW_MS + 1_000, held=8_192)
        told[name] = denial(Reason.LIMITED, grant=grant, now_ms=NOW_MS, tokens=8_192)
    for refused in told.values():
        assert (("x-should-retry", "true") in refused.headers, ("retry-after-ms", "1000") in refused.headers) == (
            True,
        ) * 2
        assert "held by calls in flight" in refused.body
    assert "3808 of 12000 an hour are left and 8192 are held by calls in flight" in told["k:1"].body
    assert "3808" not in told["t:a"].body


def test_a_call_that_never_fits_says_so() -> None:
    """400 with the bound, and no retry."""
    state = _state("p:1", Window.TOKENS_HOUR, 1_000, 1_000)
    refused = denial(Reason.NEVER_FITS, grant=Grant(Answer.NEVER_FITS, (state,), state), now_ms=NOW_MS, tokens=8_192)
    message = json.loads(refused.body)["error"]["message"]
    assert (refused.status, ("x-should-retry", "false") in refused.headers) == (400, True)
    assert "8192 tokens" in message
    assert "never fits" in message


def test_a_tenants_tokens_are_its_own_business() -> None:
    """Its refusal tells level and wait only."""
    state = _state("t:a", Window.TOKENS_HOUR, 77_777, 40)
    refused = denial(
        Reason.LIMITED, grant=Grant(Answer.REFUSED, (state,), state, NOW_MS + 1_000), now_ms=NOW_MS, tokens=300
    )
    assert "77777" not in refused.body
    assert '"remaining"' not in refused.body
