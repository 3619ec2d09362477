"""How many calls one script takes: never more than fit two milliseconds of the store, by what was seen."""

from __future__ import annotations

import pytest

from ratelimit.windows.sizing import SCRIPT_BUDGET_US, BatchSizer

LARGEST = 256


def _fed(sizer: BatchSizer, us_per_call: int, scripts: int) -> list[int]:
    """Run scripts as large as it says that cost so much a call; how long each kept the store."""
    spent = []
    for _ in range(scripts):
        calls = sizer.calls
        spent.append(calls * us_per_call)
        sizer.learn(calls, calls * us_per_call)
    return spent


@pytest.mark.parametrize("us_per_call", [5, 50, 440, 1_500])
def test_a_script_comes_to_fit_the_budget_and_to_use_it(us_per_call: int) -> None:
    """Whatever a call costs; what is cheap is bounded by the largest batch."""
    sizer = BatchSizer(first=8, largest=LARGEST)
    *_, last_us = _fed(sizer, us_per_call, 60)
    assert last_us <= SCRIPT_BUDGET_US
    assert last_us >= 0.5 * SCRIPT_BUDGET_US or sizer.calls == LARGEST


def test_it_shrinks_while_the_store_is_slow_and_grows_again() -> None:
    """Calls that cost forty times as much for a while: soon fewer of them, and as many as before when that is over."""
    sizer = BatchSizer(first=8, largest=LARGEST)
    _fed(sizer, 50, 60)
    usual = sizer.calls
    assert _fed(sizer, 2_000, 12)[-1] <= 2 * SCRIPT_BUDGET_US
    _fed(sizer, 50, 60)
    assert sizer.calls >= 0.9 * usual


def test_one_that_is_dearer_than_the_budget_goes_alone() -> None:
    """It is not left out."""
    sizer = BatchSizer(first=8, largest=LARGEST)
    _fed(sizer, 50_000, 10)
    assert sizer.calls == 1
