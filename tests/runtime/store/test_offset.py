"""The store's clock as a bound: a deadline handed to the store is never later than ours."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from runtime.store.offset import MAX_AGE_MS, ClockOffset

DELAYS = st.floats(min_value=0, max_value=500)


@given(
    true_offset=st.integers(min_value=-(10**6), max_value=10**12),
    exchanges=st.lists(st.tuples(DELAYS, DELAYS, DELAYS), min_size=1, max_size=20),
    wait_ms=st.floats(min_value=0, max_value=1000),
)
def test_the_store_never_gets_a_later_deadline(
    true_offset: int, exchanges: list[tuple[float, float, float]], wait_ms: float
) -> None:
    """However long messages travel each way, the translated deadline is at or before the true one."""
    offset, local_ms = ClockOffset(), 0.0
    for pause, there, back in exchanges:
        sent = local_ms + pause
        received = sent + there + back
        offset.learn(sent_ms=sent, store_ms=math.floor(sent + there + true_offset), received_ms=received)
        local_ms = received
    assert offset.deadline_on_store_ms(local_ms + wait_ms) <= local_ms + wait_ms + true_offset


def test_a_store_whose_clock_steps_back_is_noticed() -> None:
    """After a step the old bound contradicts the new exchange and is dropped."""
    offset = ClockOffset()
    offset.learn(sent_ms=0, store_ms=1_000_000, received_ms=1)
    offset.learn(sent_ms=10, store_ms=900_000, received_ms=11)
    assert offset.deadline_on_store_ms(61) <= 900_000 + 61 - 10


def test_an_old_bound_is_forgotten() -> None:
    """Clocks drift: what was learnt long ago no longer counts."""
    offset = ClockOffset()
    offset.learn(sent_ms=0, store_ms=1_000, received_ms=0)
    late = MAX_AGE_MS + 1.0
    offset.learn(sent_ms=late, store_ms=int(late) + 999, received_ms=late + 500)
    assert offset.deadline_on_store_ms(late) <= late + 500
    assert offset.known


def test_nothing_learnt_means_no_deadline() -> None:
    """0 stands for none; the gate is not ready then."""
    assert ClockOffset().deadline_on_store_ms(5) == 0
    assert not ClockOffset().known
