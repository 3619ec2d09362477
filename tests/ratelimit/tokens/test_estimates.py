"""How many tokens an answer is taken for that did not tell its usage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.tokens.estimates import Framing, Ratios, estimate_completion, framing_of
from tests.tables import estimates

_ratio = st.none() | st.floats(0, 100)


@pytest.mark.parametrize("row", estimates.ROWS, ids=lambda row: row.says)
def test_every_answer_is_taken_for_what_the_table_says(row: estimates.Row) -> None:
    """The table is the specification."""
    taken = estimate_completion(
        row.bytes_sent,
        framing=row.framing,
        events=row.events,
        bytes_per_token=row.bytes_per_token,
        ratios=row.ratios,
    )
    assert taken == row.tokens


@given(
    st.integers(0, 2**63),
    st.sampled_from(Framing),
    st.none() | st.integers(0, 2**63),
    st.floats(0.1, 100),
    st.builds(Ratios, _ratio, _ratio, _ratio),
)
def test_an_estimate_is_never_negative_nor_more_than_the_bytes(
    bytes_sent: int, framing: Framing, events: int | None, bytes_per_token: float, ratios: Ratios
) -> None:
    """Whatever a proxy tells, no byte costs more than a token and nothing is given back."""
    taken = estimate_completion(
        bytes_sent, framing=framing, events=events, bytes_per_token=bytes_per_token, ratios=ratios
    )
    assert 0 <= taken <= bytes_sent


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.sampled_from(Framing), st.none() | st.integers(0, 10**6))
def test_more_bytes_never_cost_less(bytes_sent: int, more: int, framing: Framing, events: int | None) -> None:
    """Who is sent more does not pay less."""
    fewer = estimate_completion(bytes_sent, framing=framing, events=events)
    assert fewer <= estimate_completion(bytes_sent + more, framing=framing, events=events)


@pytest.mark.parametrize(
    ("endpoint", "framing"),
    [
        ("chat/completions", Framing.CHAT),
        ("completions", Framing.CHAT),
        ("messages", Framing.MESSAGES),
        ("responses", Framing.RESPONSES),
        ("", Framing.CHAT),
    ],
)
def test_the_framing_follows_from_the_endpoint_and_what_was_asked(endpoint: str, framing: Framing) -> None:
    """Only who asks for a stream is taken to get one."""
    assert framing_of(endpoint, streams=True) is framing
    assert framing_of(endpoint, streams=False) is Framing.JSON
