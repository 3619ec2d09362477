"""Never more than the limit in any trailing window; in the long run nearly all of it; retry times exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.windows.budgets import MAX_UNITS, Answer, Budget, Draw, Grant, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.windows import histories
from tests.support.draws import draw

LIMITS = (1, 7, 100, 5_000)
WINDOWS = (Window.SECOND, Window.MINUTE, Window.HOUR)
START_MS = 1_800_000_000_000
BESIDE_MS = (-1, 0, 1)
POWERS = tuple(2**power for power in reversed(range(13)))

Admissions = list[tuple[int, int]]  # (time, units), ascending


def _subject(window: Window, limit: int) -> Subject:
    """Limit one window. The day keeps the value alive by the real clock while the simulated one is asked."""
    return Subject("p:1", (Budget(window, limit), Budget(Window.DAY, MAX_UNITS)))


def _greedy(limiter: Limiter, store: redis.Redis, subject: Subject, times_ms: Iterable[int]) -> Admissions:
    """At each instant take all that fits: costs 4096, 2048 .. 1, each if it fits, add up to any number."""
    charges = [draw((subject,), cost) for cost in POWERS]
    admitted: Admissions = []
    for now_ms in times_ms:
        taken = limiter.take(store.execute_command, charges, epoch="", now_ms=now_ms)
        units = sum(charges[i].hits for i, grant in enumerate(taken.grants) if grant.answer is Answer.ADMITTED)
        if units:
            admitted.append((now_ms, units))
    return admitted


def most_within(admitted: Admissions, window_ms: int) -> int:
    """Count every trailing window that ends at an admission, both ends included; the largest sum."""
    most, inside, first = 0, 0, 0
    for now_ms, units in admitted:
        inside += units
        while admitted[first][0] < now_ms - window_ms:
            inside -= admitted[first][1]
            first += 1
        most = max(most, inside)
    return most


def _borders(window: Window, beside_ms: Sequence[int], every: int = 1) -> Iterator[int]:
    """Instants at and beside the borders of buckets, for a little over two windows."""
    shape = window.value
    for bucket in range(0, 2 * shape.n + 5, every):
        yield from (START_MS + bucket * shape.bucket_ms + beside for beside in beside_ms)


def testmost_within_counts_both_ends() -> None:
    """The yardstick itself: a window of 10 from 0 holds 0 and 10, not 11."""
    assert most_within([(0, 3), (10, 4)], 10) == 7
    assert most_within([(0, 3), (11, 4)], 10) == 4


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("beside_ms", "every"), [(BESIDE_MS, 1), ((-1,), 1), ((0,), 2), ((-1, 0), 7), ((0, 1), 20)])
def test_never_more_than_the_limit_at_borders(
    limiter: Limiter, store: redis.Redis, window: Window, limit: int, beside_ms: tuple[int, ...], every: int
) -> None:
    """A caller that takes all it can at the borders of buckets never has more than L in a trailing window."""
    times_ms = _borders(window, beside_ms, every)
    admitted = _greedy(limiter, store, _subject(window, limit), times_ms)
    assert most_within(admitted, window.value.window_ms) == limit


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("beside_ms", [-25, *BESIDE_MS])
def test_every_pair_of_instants(limiter: Limiter, store: redis.Redis, limit: int, beside_ms: int) -> None:
    """After L at one instant, nothing within the window, everything after the window and one bucket."""
    shape = Window.SECOND.value
    subject = _subject(Window.SECOND, limit)
    first_ms = START_MS + beside_ms
    for bucket, beside in itertools.product(range(shape.n + 3), BESIDE_MS):
        second_ms = START_MS + bucket * shape.bucket_ms + beside
        if second_ms >= first_ms:
            store.flushdb()
            (_, units), *later = _greedy(limiter, store, subject, [first_ms, second_ms])
            assert units == limit
            since_ms = second_ms - first_ms
            assert not (later and since_ms <= shape.window_ms), (first_ms, second_ms)
            assert later or since_ms < shape.window_ms + shape.bucket_ms, (first_ms, second_ms)


@given(
    moves=st.lists(st.tuples(st.integers(0, 70), st.sampled_from((-1, 0, 1, 25)), st.integers(1, 9)), max_size=40),
    limit=st.sampled_from((1, 7, 100)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_more_than_the_limit_at_any_time(
    limiter: Limiter, store: redis.Redis, moves: list[tuple[int, int, int]], limit: int
) -> None:
    """The same for calls of any cost at any instants."""
    store.flushdb()
    subject, admitted, now_ms = _subject(Window.MINUTE, limit), [], START_MS
    for buckets, beside_ms, cost in moves:
        now_ms = max(now_ms, (now_ms // 1_000 + buckets) * 1_000 + beside_ms)
        charges = [draw((subject,), cost)] * 3
        taken = limiter.take(store.execute_command, charges, epoch="", now_ms=now_ms)
        admitted += [(now_ms, cost) for grant in taken.grants if grant.answer is Answer.ADMITTED]
    assert most_within(admitted, 60_000) <= limit


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("window", WINDOWS)
def test_a_steady_caller_gets_its_share(limiter: Limiter, store: redis.Redis, window: Window, limit: int) -> None:
    """A caller that always wants gets L in every n + 1 buckets: L*n/(n+1) per window in the long run."""
    shape, rounds = window.value, 4
    times_ms = [START_MS + bucket * shape.bucket_ms for bucket in range(rounds * (shape.n + 1))]
    admitted = _greedy(limiter, store, _subject(window, limit), times_ms)
    assert sum(units for _, units in admitted) == rounds * limit


def _look(limiter: Limiter, store: redis.Redis, charge: Draw, now_ms: int) -> Grant:
    (grant,) = limiter.take(store.execute_command, [charge], epoch="", now_ms=now_ms, look=True).grants
    return grant


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_retry_is_exact(limiter: Limiter, store: redis.Redis, seed: int) -> None:
    """Whatever was spent before: the refused call is admitted at its retry time and refused a millisecond earlier."""
    store.flushdb()
    refused = 0
    for step in histories.long(seed, 150):
        charges = [charge._replace(hold=None) for charge in step.charges]
        taken = limiter.take(store.execute_command, charges, epoch="", now_ms=step.now_ms)
        last, grant = charges[-1], taken.grants[-1]  # after it nothing intervenes
        if grant.answer is Answer.REFUSED:
            refused += 1
            assert _look(limiter, store, last, grant.retry_at_ms).answer is Answer.ADMITTED
            early = _look(limiter, store, last, grant.retry_at_ms - 1)
            assert (early.answer, early.retry_at_ms) == (Answer.REFUSED, grant.retry_at_ms)
            assert grant.refused_by in grant.states
    assert refused > 10
