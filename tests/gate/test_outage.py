"""The time for which calls may go on without a store, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.outage import GIVEN_BACK, OutageClock

LONGEST_MS = 600_000.0
UP, DOWN = True, False

ROWS = {
    # looks: (milliseconds since the start, whether the store is up); what is left at the last one
    "nothing happened": ([(0, UP), (10**9, UP)], 600_000),
    "an outage spends its time": ([(0, UP), (1_000, DOWN), (101_000, DOWN)], 500_000),
    "it ends": ([(0, DOWN), (600_000, DOWN)], 0),
    "and is not begun again by waiting": ([(0, DOWN), (600_000, DOWN), (10**9, DOWN)], 0),
    "nor by a store that is back for a moment": ([(0, DOWN), (600_000, UP), (600_001, DOWN), (600_002, DOWN)], 0),
    "ten seconds with the store give one back": ([(0, DOWN), (600_000, UP), (610_000, DOWN)], 1_000),
    "ten times as long gives back all": ([(0, DOWN), (600_000, UP), (6_600_000, DOWN)], 600_000),
    "and never more": ([(0, DOWN), (600_000, UP), (60_000_000, DOWN)], 600_000),
    "two outages add up": ([(0, DOWN), (300_000, UP), (310_000, DOWN), (410_000, DOWN)], 201_000),
    "a gate that was never asked has all": ([(5_000, DOWN)], 600_000),
    "a clock that steps back changes nothing": ([(5_000, DOWN), (1_000, DOWN)], 600_000),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_outages_spend_and_up_time_gives_back(row: tuple[list[tuple[float, bool]], float]) -> None:
    """Each row of the table, exactly."""
    looks, expected = row
    clock = OutageClock(LONGEST_MS)
    left = [clock.look(now_ms, is_up=is_up) for now_ms, is_up in looks]
    assert left[-1] == pytest.approx(expected, abs=0.2)


@given(st.lists(st.tuples(st.floats(1, 200_000), st.booleans()), min_size=1, max_size=200))
def test_a_flapping_store_is_used_up(steps: list[tuple[float, bool]]) -> None:
    """However a store comes and goes: what was spent is at most the whole time and a tenth of what the store was up."""
    clock, now_ms, spent_ms, up_ms = OutageClock(LONGEST_MS), 0.0, 0.0, 0.0
    left_ms = clock.look(now_ms, is_up=steps[0][1])
    for (length_ms, is_up), following in zip(steps, [*steps[1:], steps[0]], strict=True):
        now_ms += length_ms
        spent_ms += 0.0 if is_up else min(length_ms, left_ms)
        up_ms += length_ms if is_up else 0.0
        left_ms = clock.look(now_ms, is_up=following[1])
        assert 0 <= left_ms <= LONGEST_MS
    assert spent_ms <= LONGEST_MS + GIVEN_BACK * up_ms + 1
