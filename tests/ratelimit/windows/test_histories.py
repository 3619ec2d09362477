"""The script and the model agree on any history: answers, what remains, when to retry, when all is whole again."""

from __future__ import annotations

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.windows.budgets import MAX_UNITS
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.windows import histories
from tests.support.examples import examples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.parametrize("stored_format", [1, 2])]

_shared_store = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(history=histories.short())
@settings(_shared_store, max_examples=examples(40))
def test_short_histories_agree(
    limiter: Limiter, store: redis.Redis, stored_format: int, history: list[histories.Step]
) -> None:
    """Any few steps: costs, batches, limits set, lifted and changed, expiry, the clock forward and back."""
    histories.check_agreement(limiter, store, history, stored_format)


@given(seed=st.integers(0, 2**32))
@settings(_shared_store, max_examples=examples(1))
def test_long_histories_agree(limiter: Limiter, store: redis.Redis, stored_format: int, seed: int) -> None:
    """Three thousand steps: nothing drifts as windows roll over and values grow and shrink; all kinds and windows."""
    windows = histories.WINDOWS if stored_format == 1 else histories.ALL_WINDOWS
    histories.check_agreement(limiter, store, histories.long(seed, 3_000, windows), stored_format)


@given(seed=st.integers(0, 2**32))
@settings(_shared_store, max_examples=examples(2))
def test_histories_that_give_back_agree(limiter: Limiter, store: redis.Redis, stored_format: int, seed: int) -> None:
    """Hits that come back, more than there are among them, in a batch with others, the clock set back."""
    windows = histories.CALL_WINDOWS[: 3 if stored_format == 1 else 4]
    history = histories.long(seed, 1_500, windows, gives_back=True)
    histories.check_agreement(limiter, store, history, stored_format)


@given(seed=st.integers(0, 2**32))
@settings(_shared_store, max_examples=examples(12))
def test_vast_histories_agree(limiter: Limiter, store: redis.Redis, stored_format: int, seed: int) -> None:
    """Windows whose units add up to more than four bytes hold: no sum wraps, in neither script, and none is a fault."""
    histories.check_agreement(
        limiter, store, histories.vast(seed, 10**9 if stored_format == 1 else MAX_UNITS), stored_format
    )
