"""The specification table, run by the model and by the script on a real Valkey."""

from __future__ import annotations

import pytest
import redis

from ratelimit.windows.budgets import Answer, Budget, Charge, Grant, Subject
from ratelimit.windows.limiter import Limiter
from tests.ratelimit.windows.model import Model
from tests.tables.sliding_window import NEVER, TABLES, Limits, Row


def _charge(row: Row) -> Charge:
    names = dict.fromkeys(name for name, _, _ in row.limits)
    return Charge(tuple(_subject(name, row.limits) for name in names), cost=row.cost)


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


@pytest.mark.parametrize("name", TABLES)
def test_script_follows_the_table(name: str, limiter: Limiter, store: redis.Redis) -> None:
    """The script answers every row as the specification says."""
    for row in TABLES[name]:
        taken = limiter.take(store.execute_command, [_charge(row)], epoch="", now_ms=row.now)
        _check(row, taken.grants[0])


@pytest.mark.parametrize("name", TABLES)
def test_script_follows_the_table_in_batches(name: str, limiter: Limiter, store: redis.Redis) -> None:
    """Rows of one instant decided in one batch are answered as if they came one by one."""
    rows = TABLES[name]
    for now in dict.fromkeys(row.now for row in rows):
        batch = [row for row in rows if row.now == now]
        taken = limiter.take(store.execute_command, [_charge(row) for row in batch], epoch="", now_ms=now)
        for row, grant in zip(batch, taken.grants, strict=True):
            _check(row, grant)
