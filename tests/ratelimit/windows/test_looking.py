"""Budgets can be looked at, as they stand now, without anything being taken."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio

from ratelimit.names import budget_key
from ratelimit.windows.budgets import Budget, BudgetState, Subject, Window
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.looking import MovingError, look
from tests.support.draws import draw

SUBJECT = Subject("p:1", (Budget(Window.HOUR, 10), Budget(Window.TOKENS_HOUR, 1_000)))
EPOCH = "tk:epoch:{0}"


async def _look(redis_url: str, limiter: Limiter) -> tuple[BudgetState, ...]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return await look(client, limiter, SUBJECT)


async def test_calls_and_tokens_left_are_told(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """What was admitted is gone from both; a budget that nobody used is whole; looking twice tells the same."""
    assert [(state.remaining, state.reset_at_ms) for state in await _look(redis_url, limiter)] == [(10, 0), (1_000, 0)]
    limiter.take(store.execute_command, [draw((SUBJECT,), tokens=300)] * 2, epoch="")
    for _ in range(2):
        states = await _look(redis_url, limiter)
        assert [state.budget for state in states] == [*SUBJECT.budgets]
        assert [state.remaining for state in states] == [8, 400]
        assert all(state.reset_at_ms > 0 for state in states)


async def test_a_full_budget_has_nothing_left(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Looking is not refused where a call would be, and above a limit that was lowered nothing is left, not less."""
    limiter.take(store.execute_command, [draw((SUBJECT,), tokens=1_000)], epoch="")
    assert [state.remaining for state in await _look(redis_url, limiter)] == [9, 0]


async def test_looking_writes_nothing(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Not even a value for a subject that has none, nor usage."""
    await _look(redis_url, limiter)
    assert store.keys("*") == []


async def test_any_epoch_will_do(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """Records may have changed, and the store may have lost the script: budgets are still told."""
    store.set(EPOCH, "7-00000000000000aa")
    store.script_flush()
    assert [state.remaining for state in await _look(redis_url, limiter)] == [10, 1_000]


async def test_a_value_that_cannot_be_read_tells_nothing(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """A damaged value is not taken for an empty one."""
    store.set(budget_key("0", "p:1"), b"\xff damaged", px=60_000)
    assert await _look(redis_url, limiter) == ()


async def test_an_epoch_that_never_rests_is_an_error(limiter: Limiter, store: redis.Redis, redis_url: str) -> None:
    """The number of questions is bounded."""

    class Restless(redis.asyncio.Redis):
        moves = 0

        async def execute_command(self, *args: object, **options: object) -> object:
            self.moves += 1
            store.set(EPOCH, f"{self.moves}-00000000000000aa")
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async with Restless.from_url(redis_url) as client:
        with pytest.raises(MovingError):
            await look(client, limiter, SUBJECT)
        assert client.moves <= 10
