"""Several cells in one exchange: each is decided as if asked alone, and the script comes back where it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis

from ratelimit.budgets import Answer, Budget, Charge, Fence, Subject, Taken, Window
from ratelimit.cells import Ask, take_cells
from ratelimit.limiter import Command, Limiter

SUBJECT = Subject("p:1", (Budget(Window.MINUTE, 2),))
CHARGE = Charge((SUBJECT,))
CELLS = [Limiter(cell=str(n), epoch_key=f"tk:epoch:{{{n}}}", feed_key=f"tk:feed:{{{n}}}") for n in range(4)]


class Exchange:
    """Sends as a link does and notes what was sent."""

    def __init__(self, store: redis.Redis) -> None:
        self._store = store
        self.sent: list[list[str]] = []

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, then read all."""
        self.sent.append([str(command[0]) for command in commands])
        pipeline = self._store.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)


@pytest.fixture
def exchange(store: redis.Redis) -> Exchange:
    """An exchange with the test's store."""
    return Exchange(store)


def _admitted(taken: Taken | redis.RedisError) -> list[bool]:
    assert isinstance(taken, Taken)
    return [grant.answer is Answer.ADMITTED for grant in taken.grants]


def test_cells_are_counted_apart(exchange: Exchange) -> None:
    """A subject of one name has its own budget in each cell, each cell its own epoch and deadline; one round trip."""
    take_cells(exchange, [Ask(CELLS[0], [], "")])
    asks = [
        Ask(CELLS[0], [CHARGE] * 3, ""),
        Ask(CELLS[1], [CHARGE], ""),
        Ask(CELLS[2], [CHARGE], "1-" + "a" * 16),
        Ask(CELLS[3], [CHARGE], "", deadline_ms=1),
    ]
    exchange.sent.clear()
    full, one, stale, late = take_cells(exchange, asks)
    assert (_admitted(full), _admitted(one)) == ([True, True, False], [True])
    assert isinstance(stale, Taken)
    assert isinstance(late, Taken)
    assert (stale.fence, late.fence) == (Fence.STALE, Fence.LATE)
    assert exchange.sent == [["EVALSHA"] * 4]


def test_the_script_comes_back(exchange: Exchange, store: redis.Redis) -> None:
    """Where a store has lost the script every cell is asked again with it, and each charge counts once."""
    store.script_flush()
    for _ in range(2):
        assert [_admitted(taken) for taken in take_cells(exchange, [Ask(cell, [CHARGE], "") for cell in CELLS])] == [
            [True]
        ] * 4
    assert exchange.sent == [["EVALSHA"] * 4, ["EVAL"] * 4, ["EVALSHA"] * 4]
    (look,) = take_cells(exchange, [Ask(CELLS[0], [CHARGE], "", look=True)])
    assert _admitted(look) == [False]


def test_a_failed_cell_stands_in_its_place(exchange: Exchange) -> None:
    """The others are told as they are, and what failed is not sent again: it may have run."""

    def failing(commands: Sequence[Command]) -> list[Any]:
        replies = exchange(commands)
        replies[1] = redis.ConnectionError("gone")
        return replies

    take_cells(exchange, [Ask(CELLS[0], [], "")])
    exchange.sent.clear()
    first, failed, last = take_cells(failing, [Ask(cell, [CHARGE], "") for cell in CELLS[:3]])
    assert (_admitted(first), _admitted(last)) == ([True], [True])
    assert isinstance(failed, redis.ConnectionError)
    assert exchange.sent == [["EVALSHA"] * 3]


def test_a_malformed_batch_sends_nothing(exchange: Exchange) -> None:
    """A cost that no window can hold is refused before any cell is asked."""
    with pytest.raises(ValueError, match="cost must be"):
        take_cells(exchange, [Ask(CELLS[0], [CHARGE], ""), Ask(CELLS[1], [Charge((SUBJECT,), 0)], "")])
    assert exchange.sent == []
