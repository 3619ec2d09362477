"""The specification table, run by the model and by the script on a real Valkey."""

from __future__ import annotations

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.windows.budgets import Answer, Budget, Draw, Grant, Subject, Window
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.window import bucket_of, release_ms
from tests.ratelimit.windows.model import Model, bucket_at, release_of
from tests.support.draws import draw
from tests.tables.sliding_window import NEVER, TABLES, Limits, Row


def _charge(row: Row) -> Draw:
    names = dict.fromkeys(name for name, _, _ in row.limits)
    return draw(tuple(_subject(name, row.limits) for name in names), hits=row.cost)


def _subject(name: str, limits: Limits) -> Subject:
    return Subject(name, tuple(Budget(window, limit) for owner, window, limit in limits if owner == name))


def _check(row: Row, grant: Grant) -> None:
    expected = Answer.ADMITTED if row.allowed else Answer.NEVER_FITS if row.retry == NEVER else Answer.REFUSED
    assert (row.now, grant.answer) == (row.now, expected)
    assert tuple(state.remaining for state in grant.states) == row.remaining
    assert grant.retry_at_ms == max(0, row.retry)


@pytest.mark.parametrize("name", TABLES)
def test_model_follows_the_table(name: str) -> None:
    """The model answers every row as the specification says."""
    model = Model()
    for row in TABLES[name]:
        (grant,) = model.take([_charge(row)], row.now)
        _check(row, grant)


@pytest.mark.parametrize("stored_format", [1, 2])
@pytest.mark.parametrize("name", TABLES)
def test_script_follows_the_table(name: str, limiter: Limiter, store: redis.Redis) -> None:
    """The script answers every row as the specification says."""
    for row in TABLES[name]:
        taken = limiter.take(store.execute_command, [_charge(row)], epoch="", now_ms=row.now)
        _check(row, taken.grants[0])


@pytest.mark.parametrize("stored_format", [1, 2])
@pytest.mark.parametrize("name", TABLES)
def test_script_follows_the_table_in_batches(name: str, limiter: Limiter, store: redis.Redis) -> None:
    """Rows of one instant decided in one batch are answered as if they came one by one."""
    rows = TABLES[name]
    for now in dict.fromkeys(row.now for row in rows):
        batch = [row for row in rows if row.now == now]
        taken = limiter.take(store.execute_command, [_charge(row) for row in batch], epoch="", now_ms=now)
        for row, grant in zip(batch, taken.grants, strict=True):
            _check(row, grant)


@pytest.mark.parametrize("stored_format", [2])
@given(day=st.integers(0, 90_000), beside_ms=st.sampled_from((-1, 0, 1, 43_200_000)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_agree_on_the_calendar(limiter: Limiter, store: redis.Redis, day: int, beside_ms: int) -> None:
    """To the year 2216: the script, this process's own windows and the calendar know when a day and a month end."""
    now_ms = max(0, day * 86_400_000 + beside_ms)
    windows = (Window.UTC_DAY, Window.UTC_MONTH)
    subject = Subject("p:1", tuple(Budget(window, 5) for window in windows))
    store.flushdb()
    (grant,) = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=now_ms).grants
    ends = [release_of(window.value, bucket_at(window.value, now_ms)) for window in windows]
    assert grant.numbers == (1, ends[0], 1, ends[1])
    assert [release_ms(bucket_of(now_ms, window.value), window.value) for window in windows] == ends
    (grant,) = limiter.take(store.execute_command, [draw((subject,))], epoch="", now_ms=ends[0]).grants
    assert grant.numbers[0] == 1
    assert grant.numbers[2] == (1 if ends[0] == ends[1] else 2)
