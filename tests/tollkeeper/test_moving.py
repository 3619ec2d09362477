"""``tollkeeper cells move`` beside a gate that runs, budgets in 16 cells of a real store."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from gatebench import Catalog, question, status, wait_until
from gateprocess import gate_process, tollkeeper
from tokenbench import Teller, ending, openai_publication, reservation_of, token_call

from admin.acts.cells import moved, shard_in
from catalog.actors import Recordless
from catalog.changes import Audit
from catalog.ids import cell_of, shard_of
from catalog.keys.secrets import create_secrets, load_secrets
from catalog.records import Limits, PublicationRecord, TenantRecord
from catalog.store import names
from catalog.store.announcing import Announcer
from catalog.store.store import CatalogStore, OutcomeUnknown
from gate.links import StoreUrls
from gate.names import GATES
from ratelimit.names import held_key, usage_key

CELLS = 16
LIMIT = 5


class Ground:
    """A gate on two stores, the budgets in 16 cells."""

    def __init__(self, gate: Any, catalog: Catalog, words: list[str]) -> None:
        self.gate, self.catalog, self.words = gate, catalog, words

    def move(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return tollkeeper("cells", "move", *words, *self.words)

    def call(self, key: str, publication: PublicationRecord, times: int = 1) -> list[int]:
        """Ask so often, one after another."""
        return [status(self.gate.asker.ask(question(key=key, publication=publication))) for _ in range(times)]


@pytest.fixture
def another_store(another_redis_url: str) -> Iterator[redis.Redis]:
    """The store of budgets."""
    with redis.Redis.from_url(another_redis_url) as client:
        yield client


@pytest.fixture
def ground(redis_url: str, another_redis_url: str, tmp_path: Path) -> Iterator[Ground]:
    """It, before anybody is there."""
    file = tmp_path / "secrets.json"
    create_secrets(file)
    words = ["--records-url", redis_url, "--budgets-url", another_redis_url, "--cells", str(CELLS)]
    assert tollkeeper("cells", "set", str(CELLS), *words[:4]).returncode == 0
    catalog = Catalog(redis_url, load_secrets(file), StoreUrls(redis_url, another_redis_url, CELLS))
    with gate_process(redis_url, file, *words) as gate:
        yield Ground(gate, catalog, words)


def _add_tenant(catalog: Catalog, name: str, shard: int) -> TenantRecord:
    record = TenantRecord(name, shard, 1, 1, limits=Limits(per_hour=1_000_000))
    catalog.add(record)
    return record


def test_tenants_move_together_and_lose_only_what_their_budgets_counted(
    ground: Ground, store: redis.Redis, another_store: redis.Redis
) -> None:
    """No key's text changes; a window that touches the move holds two limits at most; a refused call costs nothing."""
    catalog, home = ground.catalog, shard_of("owner")
    _add_tenant(catalog, "owner", home)
    _add_tenant(catalog, "guest", home)  # as POST /api/tenants makes it with cellOf
    target = _add_tenant(catalog, "far", (home + 5) % 4096)
    limits = Limits(per_hour=LIMIT)
    shared = catalog.publication("owner", allowed_tenants=("guest", "owner"), limits=limits)
    _, own = catalog.key(shared, tenant="owner")
    _, guest = catalog.key(shared, tenant="guest")
    assert ground.call(own, shared, 2) + ground.call(guest, shared, LIMIT) == [200] * LIMIT + [429] * 2
    cells = [cell_of(shard, CELLS) for shard in (home, target.shard)]
    budget = f"tk:budget:{{{cells[0]}}}:p:{shared.uid}"
    assert another_store.exists(budget)
    counted = another_store.get(f"tk:budget:{{{cells[0]}}}:t:guest")
    assert ground.call(guest, shared) == [429]
    assert another_store.get(f"tk:budget:{{{cells[0]}}}:t:guest") == counted

    alone = ground.move("guest", "--to-cell-of", "far")
    assert alone.returncode == 1
    assert "they share models with owner: move them together, as guest,owner" in alone.stderr
    store.zadd(GATES, {b"older": time.time() * 1000})
    assert (
        "a gate of the release before, or one with --store-format 1, was seen"
        in ground.move("guest,owner", "--to-cell-of", "far").stderr
    )
    store.zrem(GATES, b"older")
    assert ground.call(own, shared) == [429]

    done = ground.move("guest,owner", "--to-cell-of", "far")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"guest: from cell {cells[0]} to {cells[1]}; its budgets count from zero" in done.stdout
    assert ground.call(own, shared, LIMIT + 3) == [200] * LIMIT + [429] * 3
    assert ground.call(guest, shared) == [429]
    assert another_store.exists(f"tk:budget:{{{cells[1]}}}:p:{shared.uid}")
    usage = usage_key(str(cells[0]), f"p:{shared.uid}")  # where its id says, wherever its tenant is
    wait_until(lambda: another_store.hget(usage, "total") == str(2 * LIMIT).encode())
    again = ground.move("owner,guest", "--to-cell-of", "far")
    assert (again.returncode, again.stdout.strip()) == (0, f"owner, guest: in cell {cells[1]} already")


def test_no_call_is_counted_where_the_tenant_was_once_it_has_moved(ground: Ground, another_store: redis.Redis) -> None:
    """Under calls: none is refused for the move's sake, and from the command's end the cell of before stands still."""
    catalog, home = ground.catalog, shard_of("owner")
    _add_tenant(catalog, "owner", home)
    publication = catalog.publication("owner", limits=Limits(per_hour=100_000))
    _, key = catalog.key(publication, tenant="owner")
    stopping = threading.Event()

    def calls() -> set[int]:
        seen = set(ground.call(key, publication))
        while not stopping.is_set():
            seen |= set(ground.call(key, publication))
        return seen

    before = cell_of(home, CELLS)
    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(calls) for _ in range(2)]
        for cell in {3, 9, 14} - {before}:
            assert ground.move("owner", "--to-cell", str(cell)).returncode == 0
            left = another_store.get(f"tk:budget:{{{before}}}:p:{publication.uid}")
            assert left is not None
            assert set(ground.call(key, publication, 20)) == {200}
            assert another_store.get(f"tk:budget:{{{before}}}:p:{publication.uid}") == left
            before = cell
        stopping.set()
        answers = {answer for one in callers for answer in one.result(30)}
        assert answers - {503} == {200}  # a busy machine: the store came too late to a call


def test_a_call_that_runs_while_its_tenant_moves_is_settled_where_it_was_admitted(
    ground: Ground, another_store: redis.Redis
) -> None:
    """Once: its tokens are taken back there, whatever the id of its publication says, and nowhere else."""
    catalog = ground.catalog
    _add_tenant(catalog, "owner", (shard_of("owner") + 3) % 4096)
    publication = openai_publication(catalog, tenant="owner", allowed_tenants=("owner",))
    _, key = catalog.key(publication, tenant="owner")
    before, after = (cell_of(shard_of("owner") + more, CELLS) for more in (3, 7))
    reservation = reservation_of(ground.gate.asker.ask(token_call(key, publication, max_tokens=10)))
    assert reservation is not None
    assert another_store.hlen(held_key(str(before))) == 1
    assert ground.move("owner", "--to-cell", str(after)).returncode == 0
    second = reservation_of(ground.gate.asker.ask(token_call(key, publication, max_tokens=10)))
    assert second is not None
    teller = Teller(ground.gate.target)
    teller.tell(ending(reservation, publication, total="7"))
    wait_until(lambda: not another_store.hlen(held_key(str(before))))
    assert another_store.hlen(held_key(str(after))) == 1
    teller.tell(ending(reservation, publication, total="7"), ending(second, publication, total="7"))
    wait_until(lambda: not another_store.hlen(held_key(str(after))))
    teller.close()


def test_a_move_that_died_before_it_told_the_budgets_store_is_told_of_when_it_is_run_again(
    ground: Ground, another_store: redis.Redis
) -> None:
    """The records have it already, so there is nothing to be moved: but gates must not go by what they cached."""
    record = _add_tenant(ground.catalog, "owner", 1)
    with pytest.raises(OutcomeUnknown):
        asyncio.run(_move_untold(ground, record, 2))
    before = [another_store.get(names.epoch(str(cell))) for cell in range(CELLS)]
    again = ground.move("owner", "--to-cell", "2")
    assert (again.returncode, again.stdout.strip()) == (0, "owner: in cell 2 already")
    after = [another_store.get(names.epoch(str(cell))) for cell in range(CELLS)]
    assert all(old != new for old, new in zip(before, after, strict=True))


async def _move_untold(ground: Ground, record: TenantRecord, cell: int) -> None:
    """As the command does it, whose budgets' store went away in between."""
    shard = shard_in(cell, record.id, CELLS)
    async with redis.asyncio.Redis.from_url(ground.words[1]) as records, redis.asyncio.Redis(port=1) as nowhere:
        store = CatalogStore(records, announcer=Announcer(nowhere, CELLS, owes=False))
        await store.commit(moved([record], shard, [], 2), audit=Audit(Recordless.CELLS_COMMAND, "x", "owner", "", ""))


def test_more_tenants_than_one_commit_takes_are_refused_in_a_sentence(ground: Ground) -> None:
    """And who only gets the others' shard, in the cell where it is, loses nothing and is told so."""
    shards = range(335)
    ground.catalog.add(*(TenantRecord(f"t{shard}", shard, 1, 1) for shard in shards))
    refused = ground.move(",".join(f"t{shard}" for shard in shards), "--to-cell-of", "t0")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "tenants with 0 publications are too many for one move" in refused.stderr
    done = ground.move("t5", "--to-cell-of", "t21")
    assert done.stdout.strip().startswith("t5: in cell 5 as before")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["owner"], "say --to-cell-of TENANT or --to-cell N"),
        (["owner", "--to-cell", "1", "--to-cell-of", "owner"], "say --to-cell-of TENANT or --to-cell N"),
        (["owner", "--to-cell-of", "nobody"], "there is no tenant nobody"),
        (["nobody", "--to-cell", "1"], "there is no tenant nobody"),
        (["owner", "--to-cell", "16"], "must be 0 to 15"),
    ],
)
def test_what_cannot_be_is_one_sentence(ground: Ground, words: list[str], told: str) -> None:
    """And nothing is moved."""
    _add_tenant(ground.catalog, "owner", 1)
    refused = ground.move(*words)
    assert refused.returncode == 1
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
