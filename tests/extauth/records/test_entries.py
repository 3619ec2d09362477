"""What a record comes to when it is made ready for deciding."""

from __future__ import annotations

from catalog.records import DEFAULT_TOKENS, MissingUsage, Reservation, TokenPolicy
from extauth.records.entries import SETTLING_MS, policy_of
from ratelimit.tokens import terms
from ratelimit.tokens.terms import Policy


def test_a_publication_that_says_nothing_holds_as_the_ledger_would() -> None:
    """The catalog and the ledger know nothing of each other, and have the same defaults."""
    assert policy_of(DEFAULT_TOKENS) == Policy(timeout_ms=600_000 + SETTLING_MS)


def test_every_setting_of_a_publication_reaches_the_ledger() -> None:
    """None is read by the API alone."""
    given = TokenPolicy(
        context_tokens=9,
        reservation=Reservation.ADAPTIVE,
        missing_usage=MissingUsage.FREE,
        reservation_timeout_s=7,
        default_completion_tokens=5,
        clamp_usage=True,
        media_part_tokens=3,
        bytes_per_token=2.25,
        stream_bytes_per_token=220.5,
    )
    assert policy_of(given) == Policy(
        context_tokens=9,
        adaptive=True,
        missing_usage=terms.MissingUsage.FREE,
        timeout_ms=7_000 + SETTLING_MS,
        default_completion_tokens=5,
        clamp_usage=True,
        media_tokens=3,
        bytes_per_token=2.25,
        stream_bytes_per_token=220.5,
    )
