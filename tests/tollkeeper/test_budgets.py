"""``tollkeeper budgets format 1``: what a gate has written in the newer format is read again by the release before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from gatebench import Asker, Catalog, make_gate, status, wait_until
from prometheus_client import CollectorRegistry
from valkeycluster import Cluster

from catalog.keys.secrets import Secrets
from catalog.records import Limits
from gate import formats
from gate.formats import NEWEST, OLDEST
from ratelimit.names import budget_key, held_key
from ratelimit.windows.budgets import Budget, Hold, Subject, Window
from ratelimit.windows.limiter import Limiter
from runtime.store.slots import slot_of
from tests.support.draws import draw
from tests.support.oldtaking import OldTaker

ROOT = Path(__file__).parents[2]
BUDGETS = (Budget(Window.MINUTE, 10), Budget(Window.HOUR, 20), Budget(Window.DAY, 30), Budget(Window.TOKENS_HOUR, 50))


def bring_back(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "tollkeeper", "budgets", "format", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def newer_limiter(cell: str = "0") -> Limiter:
    """A limiter of a gate that writes the newer format."""
    unset = f"tk:unfenced:{{{cell}}}"
    return Limiter(cell=cell, epoch_key=unset, feed_key=f"{unset}:feed", writes_format=lambda: NEWEST)


def formats_of(store: redis.Redis) -> set[bytes]:
    """In which formats budgets are stored."""
    return {store.get(key)[:1] for key in store.scan_iter("tk:budget:*")}


def test_the_release_before_counts_on(store: redis.Redis, redis_url: str) -> None:
    """Of 250 subjects all that was counted is counted by it, and nobody is refused as one that cannot be read."""
    subjects = [Subject(f"k:{number}", BUDGETS) for number in range(250)]
    newer_limiter().take(store.execute_command, [draw((one,), 4, tokens=7) for one in subjects], epoch="")
    assert formats_of(store) == {b"\2"}
    done = bring_back("--redis-url", redis_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "250 budgets looked at, 250 brought to format 1" in done.stdout
    assert formats_of(store) == {b"\1"}
    assert all(store.pttl(key) > 0 for key in store.scan_iter("tk:budget:*"))
    old, (seconds, _) = OldTaker(store.execute_command), store.time()
    assert {old.take(draw((one,), 7, tokens=1), seconds * 1_000) for one in subjects} == {"R"}
    assert {old.take(draw((one,), 6, tokens=43), seconds * 1_000) for one in subjects} == {"A"}
    again = bring_back("--redis-url", redis_url)
    assert (again.returncode, "0 brought" in again.stdout) == (0, True)


def test_calls_that_have_not_ended_are_waited_for(store: redis.Redis, redis_url: str) -> None:
    """Their reservations the release before would not settle: it is said how many there are, and that is no success."""
    hold = Hold("0a1call", 40, 20, 600_000, b"")
    newer_limiter().take(store.execute_command, [draw((Subject("k:1", BUDGETS),), tokens=7, hold=hold)], epoch="")
    told = bring_back("--redis-url", redis_url)
    assert (told.returncode, "1 calls that were admitted under the newer format" in told.stderr) == (1, True)
    assert formats_of(store) == {b"\1"}
    store.delete(held_key("0"))
    assert bring_back("--redis-url", redis_url).returncode == 0


@pytest.fixture
def gate(redis_url: str, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asker]:
    """A gate that may write the newer format."""
    monkeypatch.setattr(formats, "QUIET_MS", 500)
    made = make_gate(f"unix:{tmp_path}/g.sock", redis_url, secrets, CollectorRegistry())
    made.start()
    asker = Asker(made.address)
    wait_until(lambda: made.readiness().ready and made.formats() == NEWEST)
    yield asker
    asker.close()
    made.stop()


def test_gates_must_be_pinned_first(catalog: Catalog, gate: Asker, store: redis.Redis, redis_url: str) -> None:
    """One that may write the newer format meanwhile is named, and nothing is changed."""
    publication, ask = catalog.callable_publication(Limits(per_hour=9))
    assert status(gate.ask(ask)) == 200
    assert store.get(budget_key("0", f"p:{publication.uid}"))[:1] == bytes([NEWEST])
    refused = bring_back("--redis-url", redis_url)
    assert (refused.returncode, "1 of 1 gates may write the newer format" in refused.stderr) == (1, True)
    assert formats_of(store) == {bytes([NEWEST])}
    assert OLDEST == 1


def test_every_cell_of_a_cluster(redis_url: str, valkey_cluster: Cluster) -> None:
    """Wherever its server is."""
    valkey_cluster.flush()
    for cell in ("0", "1", "2"):
        with valkey_cluster.node_of(slot_of(f"tk:epoch:{{{cell}}}")).client() as client:
            newer_limiter(cell).take(client.execute_command, [draw((Subject("k:1", BUDGETS),))], epoch="")
    stores = ("--records-url", redis_url, "--budgets-url", valkey_cluster.url, "--cells", "3")
    done = bring_back(*stores)
    assert (done.returncode, "3 brought to format 1" in done.stdout) == (0, True)
    valkey_cluster.flush()
