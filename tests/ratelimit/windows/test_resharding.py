"""While a cell moves from one server of a Cluster to another, what was admitted is what is counted: once, and all."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from redis.exceptions import RedisError
from valkeycluster import Cluster

from ratelimit.windows.budgets import Answer, Budget, Subject, Taken, Window
from ratelimit.windows.cells import Ask, take_cells
from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.cluster import ClusterLink
from runtime.store.faults import surely_not_run
from runtime.store.slots import slot_of
from tests.support.draws import draw

CLOCK = SystemClock()
EPOCH_KEY = "tk:epoch:{0}"
SLOT = slot_of(EPOCH_KEY)
EPOCH = "1-" + "a" * 16
LIMIT = 100_000
OLD, NEW = (Subject(name, (Budget(Window.DAY, LIMIT),)) for name in ("k:old", "k:new"))
LIMITER = Limiter(cell="0", epoch_key=EPOCH_KEY, feed_key="tk:feed:{0}")


class Caller:
    """Takes from cell 0 through one link and counts what it was told."""

    def __init__(self, cluster: Cluster) -> None:
        self._link = ClusterLink(cluster.url, CLOCK)
        self._link.connect()
        self.admitted = {OLD: 0, NEW: 0}
        self.not_run: set[str] = set()

    def ask(self, *subjects: Subject, look: bool = False) -> Taken | RedisError:
        """Ask for a unit of each; what is no answer must prove that nothing ran."""
        charge = draw(subjects, usage=tuple(subject.name for subject in subjects))
        (taken,) = take_cells(self._execute_many, [Ask(LIMITER, [charge], EPOCH, look=look)])
        if isinstance(taken, RedisError):
            assert surely_not_run(taken), taken
            self.not_run.add(type(taken).__name__)
        elif not look:
            (grant,) = taken.grants
            assert grant.answer is Answer.ADMITTED
            for subject in subjects:
                self.admitted[subject] += 1
        return taken

    def _execute_many(self, commands: object) -> list[object]:
        return self._link.execute_many(CLOCK.monotonic_ms() + 30_000, commands)  # type: ignore[arg-type]

    def check(self, *subjects: Subject) -> None:
        """What the store has counted is what was admitted."""
        looked = self.ask(*subjects, look=True)
        assert isinstance(looked, Taken)
        remaining = {state.subject: state.remaining for state in looked.grants[0].states}
        assert remaining == {subject: LIMIT - 1 - self.admitted[subject] for subject in subjects}

    def close(self) -> None:
        """Close the link."""
        self._link.close()


@pytest.fixture
def cluster(valkey_cluster: Cluster) -> Iterator[Cluster]:
    """The session's Cluster with an epoch and a feed in cell 0; its slot goes home at the end."""
    valkey_cluster.flush()
    home = valkey_cluster.node_of(SLOT)
    with home.client() as client:
        client.set(EPOCH_KEY, EPOCH)
        client.xadd("tk:feed:{0}", {"epoch": EPOCH, "refs": "key:a"}, id="1-0")
    yield valkey_cluster
    if valkey_cluster.node_of(SLOT) != home:
        valkey_cluster.move(SLOT, home)
    valkey_cluster.flush()


@pytest.fixture
def caller(cluster: Cluster) -> Iterator[Caller]:
    """A caller who has used one of two subjects."""
    made = Caller(cluster)
    made.ask(OLD)
    yield made
    made.close()


def _others(cluster: Cluster) -> list:  # type: ignore[type-arg]
    home = cluster.node_of(SLOT)
    return [node for node in cluster.nodes if node != home]


def test_key_by_key_nothing_is_taken_twice_or_half(cluster: Cluster, caller: Caller) -> None:
    """A batch whose keys are on two servers is refused whole; before, after and where all are together it is taken."""
    stages = []

    def ask_both(stage: str) -> None:
        stages.append((stage, type(caller.ask(OLD)).__name__, type(caller.ask(OLD, NEW)).__name__))

    cluster.move(SLOT, _others(cluster)[0], during=ask_both)
    assert stages[0] == ("announced", "Taken", "TryAgainError")  # a new subject has no key yet: it may be on its way
    assert ("moving", "TryAgainError", "TryAgainError") in stages
    assert stages[-2:] == [("moved", "Taken", "TryAgainError"), ("settled", "Taken", "Taken")]
    assert caller.not_run == {"TryAgainError"}
    caller.check(OLD, NEW)


def test_all_at_once_nobody_notices(cluster: Cluster, caller: Caller) -> None:
    """Valkey 9 hands a slot over in one act: there and back again under a steady caller every call is answered."""
    _take_while_moving(cluster, caller, rounds=3)
    assert caller.not_run == set()
    caller.check(OLD, NEW)


def _take_while_moving(cluster: Cluster, caller: Caller, rounds: int) -> None:
    done = threading.Event()
    troubles: list[BaseException] = []

    def move() -> None:
        try:
            for _ in range(rounds):
                cluster.move_at_once(SLOT, _others(cluster)[0])
        except BaseException as error:  # noqa: BLE001  it is the test's own thread
            troubles.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=move, name="mover")
    thread.start()
    while not done.is_set():
        caller.ask(OLD, NEW)
    thread.join()
    assert troubles == []
    assert caller.admitted[NEW] > 10
