"""Records on a disk that keeps what was answered, budgets on one that does not: power cuts of either let nobody in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.keys.secrets import Secrets, create_secrets
from catalog.records import Kind
from catalog.store import names
from tests.durability.outages import PoweredStores
from tests.durability.processes import deaf_gate
from tests.durability.rounds import rig
from tests.durability.store import PoweredStore, powered_store
from tests.support.gatebench import Asker, Catalog, question, status, wait_until

ROUNDS = 5


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """Peppers and MAC keys."""
    return create_secrets(tmp_path / "secrets.json")


@pytest.fixture
def stores(valkey_binary: str, power_cut_library: Path, short_folder: Path) -> Iterator[PoweredStores]:
    """Records under always, budgets under everysec."""
    with contextlib.ExitStack() as stack:
        records = powered_store(valkey_binary, power_cut_library, short_folder / "records")
        budgets = powered_store(valkey_binary, power_cut_library, short_folder / "budgets", "--appendfsync", "everysec")
        yield PoweredStores(stack.enter_context(records), stack.enter_context(budgets))


@pytest.fixture
def budgets(stores: PoweredStores) -> PoweredStore:
    """The budgets store."""
    assert stores.budgets is not None
    return stores.budgets


@pytest.fixture
def asker(stores: PoweredStores, secrets: Secrets, short_folder: Path) -> Iterator[Asker]:
    """A client of a gate whose feed is dead."""
    with (
        deaf_gate(f"unix:{short_folder}/gate.sock", stores.urls, secrets) as target,
        contextlib.closing(Asker(target)) as asker,
    ):
        yield asker


@pytest.fixture
def catalog(stores: PoweredStores, secrets: Secrets) -> Catalog:
    """A writer that tells the budgets store before it is done, as the admin does."""
    return Catalog(stores.records.url, secrets, stores.urls)


def epoch_of(store: PoweredStore) -> bytes:
    """The epoch in force in a store."""
    return store.ask("GET", names.epoch("0")) or b""


def await_synced(store: PoweredStore) -> None:
    """Wait until all that the store has written is on its disk."""
    store.await_written()
    syncs = store.disk.journal().syncs
    store.ask("SET", "mark", "x", "EX", 60)
    wait_until(lambda: store.disk.journal().syncs > syncs)


@pytest.mark.slow
def test_a_budgets_store_that_wakes_up_before_the_revoke_lets_no_revoked_key_in(
    catalog: Catalog, budgets: PoweredStore, asker: Asker
) -> None:
    """Its epoch is the very one that the gate had proved, and the feed is dead; still the key is dead."""
    woke_older = 0
    catalog.tenant()
    publication = catalog.publication()
    _, other = catalog.key(publication)
    for _ in range(ROUNDS):
        key, text = catalog.key(publication)
        asks = [question(key=one, publication=publication) for one in (text, other)]
        assert [status(asker.ask(ask)) for ask in asks] == [200, 200]
        proved = epoch_of(budgets)
        await_synced(budgets)
        catalog.remove(Kind.KEY, key)
        budgets.power_cut()
        budgets.start()
        woke_older += epoch_of(budgets) == proved
        await_admitted(asker, asks[1])
        assert status(asker.ask(asks[0])) == 401
    assert woke_older > 0


def await_admitted(asker: Asker, ask: Any) -> None:
    """Wait until the gate has healed."""
    wait_until(lambda: status(asker.ask(ask)) == 200)


def test_a_new_empty_budgets_store_lets_no_revoked_key_in(
    catalog: Catalog, budgets: PoweredStore, asker: Asker
) -> None:
    """Counters are gone, epochs are gone, keys are as they were answered; the gate heals by itself."""
    catalog.tenant()
    publication = catalog.publication()
    key, text = catalog.key(publication)
    _, other = catalog.key(publication)
    asks = [question(key=one, publication=publication) for one in (text, other)]
    assert [status(asker.ask(ask)) for ask in asks] == [200, 200]
    catalog.change(key, disabled=True)
    budgets.kill()
    budgets.disk.empty()
    budgets.start()
    await_admitted(asker, asks[1])
    assert status(asker.ask(asks[0])) == 401


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_outages_of_either_store_lose_nothing_that_was_answered(valkey_binary: str, power_cut_library: Path) -> None:
    """The rounds of ``test_power_cuts``, in which records, budgets or both lose power, or budgets come back empty."""
    with rig(valkey_binary, power_cut_library, 20_002, two_stores=True) as (running, callers):
        for _ in running.run(callers, ROUNDS):
            pass
    assert running.totals.rounds == ROUNDS
