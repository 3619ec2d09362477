"""Several cells in one exchange: each is decided as if asked alone, and the script comes back where it was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from valkeycluster import Cluster

from ratelimit.windows.budgets import MAX_UNITS, Answer, Budget, Fence, Subject, Taken, Window
from ratelimit.windows.cells import Ask, take_cells
from ratelimit.windows.limiter import Command, Limiter
from runtime.clock import SystemClock
from runtime.store.cluster import ClusterLink
from runtime.store.link import StoreLink
from runtime.store.slots import slot_of
from tests.ratelimit.windows import histories
from tests.ratelimit.windows.model import Model
from tests.support.draws import draw

SUBJECT = Subject("p:1", (Budget(Window.MINUTE, 2),))
CHARGE = draw((SUBJECT,))
CELLS = [Limiter(cell=str(n), epoch_key=f"tk:epoch:{{{n}}}", feed_key=f"tk:feed:{{{n}}}") for n in range(64)]


class Exchange:
    """Sends through the link and notes what was sent."""

    def __init__(self, link: StoreLink | ClusterLink) -> None:
        self._link = link
        self.sent: list[list[str]] = []

    def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, then read all."""
        self.sent.append([str(command[0]) for command in commands])
        return self._link.execute_many(SystemClock().monotonic_ms() + 20_000, commands)


@pytest.fixture
def exchange(link: StoreLink | ClusterLink) -> Exchange:
    """An exchange with the test's store, where the cells begin empty."""
    CELLS[0].load(lambda *command: link.execute(SystemClock().monotonic_ms() + 20_000, *command))
    return Exchange(link)


@pytest.fixture
def forget_scripts(store: redis.Redis, cluster: Cluster | None) -> Callable[[], None]:
    """Make every server lose its scripts, as a restart does."""

    def forget() -> None:
        for client in [node.client() for node in cluster.nodes] if cluster else [store]:
            client.execute_command("SCRIPT FLUSH")
            client.close()

    return forget


def _admitted(taken: Taken | redis.RedisError) -> list[bool]:
    assert isinstance(taken, Taken)
    return [grant.answer is Answer.ADMITTED for grant in taken.grants]


def test_cells_are_counted_apart(exchange: Exchange) -> None:
    """A subject of one name has its own budget in each cell, each cell its own epoch and deadline; one round trip."""
    asks = [
        Ask(CELLS[0], [CHARGE] * 3, ""),
        Ask(CELLS[1], [CHARGE], ""),
        Ask(CELLS[2], [CHARGE], "1-" + "a" * 16),
        Ask(CELLS[3], [CHARGE], "", deadline_ms=1),
    ]
    full, one, stale, late = take_cells(exchange, asks)
    assert (_admitted(full), _admitted(one)) == ([True, True, False], [True])
    assert isinstance(stale, Taken)
    assert isinstance(late, Taken)
    assert (stale.fence, late.fence) == (Fence.STALE, Fence.LATE)
    assert exchange.sent == [["EVALSHA"] * 4]


def test_the_script_comes_back(exchange: Exchange, forget_scripts: Callable[[], None]) -> None:
    """Where a store has lost the script every cell is asked again with it, and each charge counts once."""
    forget_scripts()
    for _ in range(2):
        assert [
            _admitted(taken) for taken in take_cells(exchange, [Ask(cell, [CHARGE], "") for cell in CELLS[:4]])
        ] == [[True]] * 4
    assert exchange.sent == [["EVALSHA"] * 4, ["EVAL"] * 4, ["EVALSHA"] * 4]
    (look,) = take_cells(exchange, [Ask(CELLS[0], [CHARGE], "", look=True)])
    assert _admitted(look) == [False]


def test_a_failed_cell_stands_in_its_place(exchange: Exchange) -> None:
    """The others are told as they are, and what failed is not sent again: it may have run."""

    def failing(commands: Sequence[Command]) -> list[Any]:
        replies = exchange(commands)
        replies[1] = redis.ConnectionError("gone")
        return replies

    first, failed, last = take_cells(failing, [Ask(cell, [CHARGE], "") for cell in CELLS[:3]])
    assert (_admitted(first), _admitted(last)) == ([True], [True])
    assert isinstance(failed, redis.ConnectionError)
    assert exchange.sent == [["EVALSHA"] * 3]


def test_a_malformed_batch_sends_nothing(exchange: Exchange) -> None:
    """A cost that no window can hold is refused before any cell is asked."""
    with pytest.raises(ValueError, match="hits must be"):
        take_cells(exchange, [Ask(CELLS[0], [CHARGE], ""), Ask(CELLS[1], [draw((SUBJECT,), MAX_UNITS + 1)], "")])
    assert exchange.sent == []


def test_the_cells_are_spread(valkey_cluster: Cluster) -> None:
    """Each master of the Cluster has its share of 64 cells, so what is tested here is tested on all of them."""
    cells_of = Counter(valkey_cluster.node_of(slot_of(f"tk:epoch:{{{cell}}}")).port for cell in range(64))
    assert len(cells_of) == 3
    assert min(cells_of.values()) > 10


def test_every_cell_agrees_with_the_model(exchange: Exchange) -> None:
    """64 cells with a history of their own each, taken in one exchange a step: none hears of another's."""
    models = [Model() for _ in CELLS]
    runs = [histories.long(seed, 25) for seed in range(len(CELLS))]
    for steps in zip(*runs, strict=True):
        asks = [Ask(cell, step.charges, "", now_ms=step.now_ms) for cell, step in zip(CELLS, steps, strict=True)]
        for taken, model, step in zip(take_cells(exchange, asks), models, steps, strict=True):
            assert isinstance(taken, Taken)
            assert list(taken.grants) == model.take(step.charges, step.now_ms)
