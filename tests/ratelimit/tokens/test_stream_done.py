"""What a proxy configured by the release before says of a call's end, read without trust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.tokens.costs import Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.stream_done import read_told
from ratelimit.tokens.terms import MAX_TOKENS

SAID = {
    "reservation": "0a1f00",
    "publication": "0a1pub",
    "status": "200",
    "bytes": "75",
    "duration": "12",
    "flags": "-",
    "whole": "11",
    "total": "12",
    "prompt": "5",
    "completion": "7",
}


def test_what_was_said_is_read() -> None:
    """Every entry by its name."""
    ended = Ended(200, 75, total=12, prompt=5, completion=7, aborted=False, duration_ms=12)
    assert read_told(SAID) == Told("0a1f00", "0a1pub", ended)


@pytest.mark.parametrize(
    ("flags", "whole", "aborted"),
    [
        ("-", "11", False),
        ("DC", "-", True),
        ("UPE", "-", True),
        ("-", "-", True),  # cut off for its length
        ("UC", "3", True),
        ("%RESPONSE_FLAGS%", "11", None),  # a proxy that does not format
        ("-", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%", None),
        ("", "", None),
    ],
)
def test_a_call_that_was_cut_off_is_told_from_a_whole_one(
    flags: str,
    whole: str,
    aborted: bool | None,  # noqa: FBT001  a row of the table
) -> None:
    """By its flags, and by whether its last byte was sent."""
    told = read_told(SAID | {"flags": flags, "whole": whole})
    assert told is not None
    assert told.ended.aborted is aborted


@pytest.mark.parametrize(
    ("details", "withheld"), [("via_upstream", False), ("response_payload_too_large", True), ("-", False)]
)
def test_an_answer_that_the_proxy_kept_is_told_from_a_failure(details: str, withheld: bool) -> None:  # noqa: FBT001  a row
    """Its server has answered, whatever the caller was told."""
    told = read_told(SAID | {"status": "500", "details": details})
    assert told is not None
    assert told.ended.withheld is withheld


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("12", 12),
        ("12.7", 12),
        ("1e+06", 10**6),
        ("inf", MAX_TOKENS),
        ("1e30", MAX_TOKENS),
        *((text, None) for text in ("-", "", "-5", "nan", "x", "%X%")),
    ],
)
def test_a_number_that_cannot_be_meant_is_unknown(text: str, total: int | None) -> None:
    """A model's server had its hand in it."""
    told = read_told(SAID | {"total": text})
    assert told is not None
    assert told.ended.total == total


@pytest.mark.parametrize("reservation", ["", "-", "%DYNAMIC_METADATA(x)%", "x" * 65])
def test_without_a_reservation_there_is_nothing_to_settle(reservation: str) -> None:
    """It is counted by whoever asks."""
    assert read_told(SAID | {"reservation": reservation}) is None


def test_a_proxy_that_formats_nothing_tells_nothing() -> None:
    """Though it may name the reservation, by an action that needs no format: the call is left to the sweep."""
    assert read_told(SAID | {"status": "%RESPONSE_CODE%", "total": "%X%"}) is None
    assert read_told({name: text for name, text in SAID.items() if name != "status"}) is None
    assert read_told(SAID | {"status": "0"}) is not None


@given(entries=st.dictionaries(st.sampled_from(sorted(SAID)), st.text(max_size=80)))
def test_nothing_that_is_said_breaks_it(entries: dict[str, str]) -> None:
    """Any texts give bounded numbers, or nothing."""
    told = read_told(entries)
    if told is not None:
        assert 0 <= told.ended.status <= 599
        assert told.ended.total is None or 0 <= told.ended.total <= MAX_TOKENS
