"""What a real store keeps of what it answered, by how it was told to sync."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.durability.store import PoweredStore, powered_store
from tests.support.gatebench import wait_until

StartStore = Callable[..., Any]
ROUNDS = 5


@pytest.fixture
def start_store(valkey_binary: str, power_cut_library: Path, short_folder: Path) -> StartStore:
    """What starts a store with options after those of ``up``."""
    return lambda *options: powered_store(valkey_binary, power_cut_library, short_folder / "store", *options)


def written(store: PoweredStore, values: range) -> Iterator[int]:
    """Write values one after another; gives each that was answered."""
    with redis.Redis.from_url(store.url) as client:
        for value in values:
            client.set("value", value)
            yield value


def lost_rounds(store: PoweredStore) -> int:
    """Lose power right after an answer, several times; in how many of them the answered value was gone."""
    lost = 0
    for round_ in range(ROUNDS):
        *_, last = written(store, range(100 * round_ + 1, 100 * round_ + 50))
        store.power_cut()
        store.start()
        lost += store.ask("GET", "value") != str(last).encode()
    return lost


def test_always_keeps_every_answer(start_store: StartStore) -> None:
    """As ``up`` starts it: what was answered is on the disk, whatever moment the power goes."""
    with start_store() as store:
        assert lost_rounds(store) == 0


def test_everysec_loses_answers(start_store: StartStore) -> None:
    """The instrument sees it, so it would see it under ``always`` too."""
    with start_store("--appendfsync", "everysec") as store:
        assert lost_rounds(store) > 0  # one in a thousand cuts comes just after the sync of its second


def test_always_keeps_every_answer_while_the_file_is_rewritten(start_store: StartStore) -> None:
    """Renames, new files and removed ones included, wherever in the rewrite the power goes."""
    with start_store() as store:
        for round_ in range(2 * ROUNDS):
            *_, before = written(store, range(1_000 * round_ + 1, 1_000 * round_ + 50))
            store.ask("BGREWRITEAOF")
            last = max(written(store, range(before + 1, before + 2 + 40 * round_)))
            store.power_cut()
            store.start()
            assert store.ask("GET", "value") == str(last).encode()


def test_a_killed_store_keeps_what_it_answered(start_store: StartStore) -> None:
    """Kill -9 without a power cut: the system has what was written, synced or not.

    Under everysec the write of an answered change may be put off while a sync runs, so the test waits it out.
    """
    with start_store("--appendfsync", "everysec") as store:
        for round_ in range(ROUNDS):
            *_, last = written(store, range(100 * round_ + 1, 100 * round_ + 50))
            store.await_written()
            store.kill()
            store.start()
            assert store.ask("GET", "value") == str(last).encode()


def test_waitaof_is_no_proof_under_everysec(start_store: StartStore) -> None:
    """Why nothing here is built on it: it answers that the disk has it, and the disk has not."""
    lost = 0
    with start_store("--appendfsync", "everysec") as store:
        for round_ in range(ROUNDS):
            with redis.Redis.from_url(store.url) as client:
                client.set("value", round_)
                assert client.execute_command("WAITAOF", 1, 0, 1_000)[0] == 1
            store.power_cut()
            store.start()
            lost += store.ask("GET", "value") != str(round_).encode()
    assert lost > 0


@pytest.mark.parametrize(("lazy", "kept"), [("no", b"49"), ("yes", None)])
def test_always_is_not_always_where_rewrites_put_syncs_off(start_store: StartStore, lazy: str, kept: bytes) -> None:
    """Why /readyz looks at ``no-appendfsync-on-rewrite`` too: with it, answers during a rewrite are not on the disk."""
    with start_store("--no-appendfsync-on-rewrite", lazy) as store:
        for number in range(200):
            store.ask("SET", f"key-{number}", "x")
        store.ask("CONFIG", "SET", "rdb-key-save-delay", "20000")  # microseconds: a rewrite of four seconds
        store.ask("BGREWRITEAOF")
        wait_until(lambda: store.ask("INFO", "persistence")["aof_rewrite_in_progress"] == 1)
        assert max(written(store, range(1, 50))) == 49
        assert store.ask("INFO", "persistence")["aof_rewrite_in_progress"] == 1
        store.power_cut()
        store.start()
        assert store.ask("GET", "value") == kept
