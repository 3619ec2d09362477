"""What a call holds back before it runs and what it is charged when it has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.tokens.costs import (
    MAX_TOKENS,
    UNLEARNED,
    Asked,
    Ended,
    Learned,
    MissingUsage,
    Policy,
    Terms,
    charge_of,
    terms_of,
)
from tests.tables import endings

LEARNED = Learned(prompt_tokens_per_byte=0.25, completion_share=0.1, completion_tokens_per_byte=0.2)

_tokens = st.integers(0, MAX_TOKENS)
_asked = st.builds(
    Asked,
    prompt_bytes=st.integers(0, 4 * 2**20),
    max_tokens=st.none() | st.integers(0, MAX_TOKENS),
    choices=st.integers(1, 16),
)
_policies = st.builds(
    Policy,
    context_tokens=st.integers(1, 10**7),
    adaptive=st.booleans(),
    missing_usage=st.sampled_from(MissingUsage),
)
_shares = st.none() | st.floats(0, 1)
_learned = st.builds(Learned, _shares, _shares, _shares)
_ended = st.builds(
    Ended,
    status=st.sampled_from((0, 200, 204, 400, 404, 408, 429, 500, 503, 504)),
    bytes_sent=st.integers(0, 10**9),
    total=st.none() | _tokens,
    prompt=st.none() | _tokens,
    completion=st.none() | _tokens,
    aborted=st.sampled_from((None, True, False)),
)


@pytest.mark.parametrize("row", endings.ROWS, ids=lambda row: row.says)
def test_every_ending_costs_what_the_table_says(row: endings.Row) -> None:
    """The table is the specification."""
    assert charge_of(terms_of(row.asked, row.policy, row.learned), row.ended, row.learned) == row.cost


@pytest.mark.parametrize(
    ("asked", "policy", "reserved"),
    [
        (Asked(400, 100), Policy(1_000), 500),  # a token a byte and the completion
        (Asked(400, 100, choices=2), Policy(1_000), 600),  # the prompt is read once
        (Asked(400, 900), Policy(1_000), 1_000),  # no more than the context
        (Asked(400), Policy(1_000), 1_000),  # no bound named: the whole context
        (Asked(400, choices=2), Policy(1_000), 2_000),
        (Asked(0, 0), Policy(1_000), 0),
        (Asked(10**6, 10**9, choices=16), Policy(10**9), MAX_TOKENS),
    ],
)
def test_strict_holds_back_the_most_that_it_can_cost(asked: Asked, policy: Policy, reserved: int) -> None:
    """Whatever has been learned."""
    assert terms_of(asked, policy, LEARNED).reserved == terms_of(asked, policy).reserved == reserved


def test_adaptive_holds_back_what_such_calls_cost() -> None:
    """As soon as it has learned both what prompts and what completions cost, and not before."""
    asked, adaptive = Asked(400, 500), Policy(1_000, adaptive=True)
    assert terms_of(asked, adaptive, LEARNED).reserved == 100 + 50
    assert terms_of(asked, adaptive).reserved == 900
    assert terms_of(asked, adaptive, Learned(prompt_tokens_per_byte=0.25)).reserved == 900


@given(asked=_asked, policy=_policies, learned=_learned, text=st.floats(0, 1), share=st.floats(0, 1))
def test_no_honest_call_costs_more_than_strict_held_back(
    asked: Asked, policy: Policy, learned: Learned, text: float, share: float
) -> None:
    """Whatever tokenizer, whatever of the completion comes: the real usage is within what was held back."""
    terms = terms_of(asked, Policy(policy.context_tokens), learned)
    prompt = int(min(asked.prompt_bytes, policy.context_tokens) * text)
    room = min(policy.context_tokens - prompt, policy.context_tokens if asked.max_tokens is None else asked.max_tokens)
    real = prompt + int(room * share) * asked.choices
    assert min(real, MAX_TOKENS) <= terms.reserved
    assert charge_of(terms, Ended(200, total=real)).tokens <= terms.reserved


@given(asked=_asked, policy=_policies, learned=_learned, ended=_ended)
def test_charges_are_within_bounds(asked: Asked, policy: Policy, learned: Learned, ended: Ended) -> None:
    """Nothing is charged below nothing or above the ceiling, and only what was clamped says so."""
    terms = terms_of(asked, policy, learned)
    assert 0 <= terms.presumed <= terms.reserved <= terms.ceiling <= MAX_TOKENS
    assert 0 <= terms.prompt_estimate <= terms.ceiling
    assert terms.reserved <= terms_of(asked, Policy(policy.context_tokens)).reserved
    cost = charge_of(terms, ended, learned)
    assert 0 <= cost.tokens <= terms.ceiling
    assert not cost.clamped or cost.tokens == terms.ceiling


@given(asked=_asked, policy=_policies, learned=_learned)
def test_terms_are_read_as_they_were_written(asked: Asked, policy: Policy, learned: Learned) -> None:
    """They go to the store and back."""
    terms = terms_of(asked, policy, learned)
    assert Terms.unpack(terms.pack()) == terms


@given(raw=st.binary(max_size=80))
def test_what_is_none_is_refused(raw: bytes) -> None:
    """Bytes that ``pack`` cannot have written raise ``ValueError`` and nothing else."""
    try:
        Terms.unpack(raw)
    except ValueError:
        return
    assert len(raw) == len(terms_of(Asked(1), Policy(), UNLEARNED).pack())
