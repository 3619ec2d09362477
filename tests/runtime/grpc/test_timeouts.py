"""A client's timeout as its header says it, and what is kept of headers seen."""

from __future__ import annotations

import pytest

from runtime.grpc.timeouts import MAX_REMEMBERED, Timeouts, read_timeout_ms

NEVER = float("inf")


@pytest.mark.parametrize(
    ("text", "timeout_ms"),
    [
        (b"2H", 7_200_000),
        (b"3M", 180_000),
        (b"4S", 4_000),
        (b"200m", 200),
        (b"99999999u", 99_999.999),
        (b"5000000n", 5),
        (b"0m", 0),
        (b"", NEVER),
        (b"m", NEVER),
        (b"200", NEVER),
        (b"123456789m", NEVER),
        (b"-1m", NEVER),
        (b"1 m", NEVER),
        (b"1m\n", NEVER),
        (b"\xd9\xa1m", NEVER),
    ],
)
def test_every_unit_is_read_and_nothing_else(text: bytes, timeout_ms: float) -> None:
    """Up to eight digits and a unit; what cannot be read is no timeout, and the gate's own patience holds."""
    assert read_timeout_ms(text) == pytest.approx(timeout_ms)
    assert Timeouts().ms(text) == pytest.approx(timeout_ms)


def test_a_call_without_a_timeout_has_all_the_time() -> None:
    """In the header's place stands its client's address then."""
    assert Timeouts().ms("ipv4:127.0.0.1:1") == NEVER
    assert Timeouts().ms(None) == NEVER


def test_many_different_texts_take_no_more_room() -> None:
    """Whoever sends another timeout with each call: what is kept stays bounded, and right."""
    timeouts = Timeouts()
    for number in range(3 * MAX_REMEMBERED):
        assert timeouts.ms(b"%du" % number) == pytest.approx(number / 1000)
    assert len(timeouts._known) <= MAX_REMEMBERED
