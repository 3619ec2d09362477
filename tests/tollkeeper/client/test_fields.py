"""Options of the command line become a body's fields."""

from __future__ import annotations

import pytest

from tollkeeper.client.fields import BadOption, Field, Kind, body_of, merged

LIMIT = Field("--per-minute", ("rateLimiting", "requestsPerMinute"), Kind.LIMIT, "")
HOUR = Field("--per-hour", ("rateLimiting", "requestsPerHour"), Kind.LIMIT, "")
END = Field("--expires-at", ("expiresAt",), Kind.TIME, "")
WORDS = Field("--publication", ("publications",), Kind.WORDS, "")
PAIRS = Field("--label", ("labels",), Kind.PAIRS, "")
OFF = Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "")
SERVERS = Field("--server", ("servers",), Kind.SERVERS, "")
FIELDS = (LIMIT, HOUR, END, WORDS, PAIRS, OFF, SERVERS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"per_minute": "10"}, {"rateLimiting": {"requestsPerMinute": 10}}),
        ({"per_minute": "none", "per_hour": "5"}, {"rateLimiting": {"requestsPerMinute": None, "requestsPerHour": 5}}),
        ({"per_minute": "2.5"}, {"rateLimiting": {"requestsPerMinute": 2.5}}),  # the API says what is wrong with it
        ({"expires_at": "none"}, {"expiresAt": None}),
        ({"expires_at": "2027-01-01T00:00:00Z"}, {"expiresAt": "2027-01-01T00:00:00Z"}),
        ({"publication": ("a,b", "c", "")}, {"publications": ["a", "b", "c"]}),
        ({"publication": ()}, {}),
        ({"label": ("a=1", "b=x=y", "c=")}, {"labels": {"a": "1", "b": "x=y", "c": ""}}),
        ({"label": ("",)}, {"labels": {}}),
        ({"disabled": False}, {"disabled": False}),
        ({"disabled": None}, {}),
        (
            {"server": ("http://a:1=3", "http://b:1", "http://c/?x=y")},
            {"servers": [{"url": "http://a:1", "weight": 3}, {"url": "http://b:1"}, {"url": "http://c/?x=y"}]},
        ),
    ],
)
def test_what_is_given_is_what_the_body_says(given: dict[str, object], expected: dict[str, object]) -> None:
    """And nothing else: what is absent stays as it is."""
    assert body_of(FIELDS, given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"per_minute": "many"}, "--per-minute: must be a number, or none, not 'many'"),
        ({"per_minute": ""}, "--per-minute: must be a number"),
        *(({"per_minute": word}, "--per-minute: must be a number") for word in ("nan", "inf", "1_000", "9" * 5000)),
        ({"label": ("red",)}, "--label: must be NAME=VALUE, not 'red'"),
        ({"label": ("=red",)}, "--label: must be NAME=VALUE"),
    ],
)
def test_what_cannot_be_meant_names_its_option(given: dict[str, object], words: str) -> None:
    """And the rule."""
    with pytest.raises(BadOption) as caught:
        body_of(FIELDS, given)
    assert str(caught.value).startswith(words)


def test_options_lie_over_a_file() -> None:
    """Objects are merged, lists and values are replaced, null stays null."""
    file = {"a": {"x": 1, "y": None}, "b": [1, 2], "c": 1}
    assert merged(file, {"a": {"y": 2}, "b": [3]}) == {"a": {"x": 1, "y": 2}, "b": [3], "c": 1}
    assert merged({"a": None}, {"a": {"x": 1}}) == {"a": {"x": 1}}
    assert file == {"a": {"x": 1, "y": None}, "b": [1, 2], "c": 1}
