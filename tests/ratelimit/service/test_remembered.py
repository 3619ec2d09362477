"""What is kept of calls' bytes: what comes again, within its bound, whatever else comes."""

from __future__ import annotations

import tracemalloc

import pytest

from ratelimit.descriptors.asking import Asked, Planner
from ratelimit.descriptors.reading import parse
from ratelimit.service.remembered import BYTES_A_PAYLOAD_BYTE, ENTRY_BYTES, MAX_PAYLOAD_BYTES, MAX_SEEN, Remembered

SMALL = 64 * (ENTRY_BYTES + 10 * BYTES_A_PAYLOAD_BYTE)
"""Room for some sixty calls of ten bytes."""


def payload(number: int) -> bytes:
    """Ten bytes like no others."""
    return b"%010d" % number


def test_what_comes_again_is_kept() -> None:
    """From the second time on."""
    kept = Remembered[int]()
    kept.offer(b"a", 1)
    assert kept.get(b"a") is None
    kept.offer(b"a", 2)
    assert (kept.get(b"a"), kept.get(b"b"), len(kept)) == (2, None, 1)


def test_nothing_is_kept_of_large_calls() -> None:
    """However often they come."""
    kept = Remembered[int]()
    for _ in range(3):
        kept.offer(b"x" * (MAX_PAYLOAD_BYTES + 1), 1)
    assert len(kept) == 0


def test_values_that_are_all_different_drive_nothing_out() -> None:
    """Nor is anything kept of them."""
    kept = Remembered[int](SMALL)
    for _ in range(2):
        kept.offer(b"in use", 1)
    for number in range(3 * MAX_SEEN):
        kept.offer(payload(number), number)
    assert kept.get(b"in use") == 1
    assert len(kept) == 1
    assert len(kept._seen) <= MAX_SEEN


def test_what_is_in_use_stays_and_the_rest_makes_room() -> None:
    """Even where all that comes comes twice."""
    kept = Remembered[int](SMALL)
    for number in range(2_000):
        for _ in range(2):
            kept.offer(payload(number), number)
        assert kept.get(payload(number)) == number
        assert kept.get(payload(0)) == 0
        assert len(kept) <= 64
    assert kept.get(payload(1)) is None


@pytest.mark.parametrize("descriptors", [1, 3, 16])
@pytest.mark.parametrize("length", [4, 40])
def test_what_is_kept_takes_no_more_memory_than_is_said(descriptors: int, length: int) -> None:
    """Each call with its plan: limits, names, and what is packed of them."""
    listed = "".join(
        f"  - {{key: k{n}, rate_limit: {{unit: day, requests_per_unit: 9}}}}\n" for n in range(descriptors)
    )
    planner = Planner(parse("domain: d\ndescriptors:\n" + listed))
    entry_bytes = 8 + length  # of a descriptor on the wire: two tags and lengths, and the texts
    kept = Remembered[Asked](max_bytes := 2_000_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4_000):
            value = f"{number:0{length}}"
            asked = Asked("d", tuple((((f"k{n}", value),), 1) for n in range(descriptors)))
            planner.plan_of(asked)
            made = value.encode().ljust(min(MAX_PAYLOAD_BYTES, descriptors * entry_bytes), b"-")
            for _ in range(2):
                kept.offer(made, asked)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept) > 10
    assert taken < max_bytes + 1_500_000  # with the hashes of what came
