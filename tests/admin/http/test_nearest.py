"""Did you mean: the nearest known name, and never one of another unit."""

from __future__ import annotations

import pytest

from admin.http.nearest import nearest
from admin.schemas.schemas import RateLimitingInput, RotateInput, TokensInput

KNOWN = [
    field.alias or name
    for model in (RateLimitingInput, RotateInput, TokensInput)
    for name, field in model.model_fields.items()
]


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("requestsPerMinut", "requestsPerMinute"),
        ("requestPerMinute", "requestsPerMinute"),
        ("requests_per_minute", "requestsPerMinute"),
        ("requestsPerMin", "requestsPerMinute"),
        ("requestsperhour", "requestsPerHour"),
        ("tokenPerHours", "tokensPerHour"),
        ("gracePeriodSecond", "gracePeriodSeconds"),
        ("gracePeriod", "gracePeriodSeconds"),
        ("reservationTimeoutSec", "reservationTimeoutSeconds"),
        ("burst", "burstLimit"),
        ("contextToken", "contextTokens"),
    ],
)
def test_a_name_written_amiss_is_offered_right(asked: str, offered: str) -> None:
    """Letters too few or too many, other writing, short units."""
    assert nearest(asked, KNOWN) == f"; did you mean {offered}?"


@pytest.mark.parametrize(
    "asked",
    [
        "requestsPerSecond", "requestsPerSecnd", "requestspersecond", "requests_per_day", "requestsPerMonth",
        "requestsPerSec", "requestsPerWeek", "tokensPerMinute", "tokensPerDay", "tokens-per-minute", "tokensPerMonths",
        "gracePeriodMinutes", "gracePeriodHours", "gracePeriodMs", "reservationTimeoutMinutes", "bytesPerHour",
        "contextBytes", "mediaPartBytes",
    ],
)  # fmt: skip
def test_another_unit_is_never_offered(asked: str) -> None:
    """It would be taken and mean another limit: nothing is offered instead."""
    assert nearest(asked, KNOWN) == ""


@pytest.mark.parametrize("asked", ["", "x" * 100_000, "PerPerPer", "s", "\u00e9\U0001f600", "minute"])
def test_whatever_was_sent_is_answered(asked: str) -> None:
    """Nothing, very much and what is no name end in an answer."""
    assert isinstance(nearest(asked, KNOWN), str)
