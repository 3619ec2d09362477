"""Reading records as of one epoch, and learning what changed since."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio

from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import HostRecord, Kind, TenantRecord
from catalog.store import reader
from catalog.store.reader import Delta, Snapshot, catch_up, follow, read
from catalog.store.store import CatalogStore

Execute = Callable[..., Any]
AUDIT = Audit(actor=Recordless.START, action="test", target="", tenant="", request_id="")
TENANT = TenantRecord("tenant-a", shard=1, created_at_ms=1, updated_at_ms=1)


class Writer:
    """Commits from plain code and from threads."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = redis.asyncio.Redis.from_url(url)
        self.catalog = CatalogStore(self._client)

    def put(self, *hosts: str, version: int = 0, note: str = "") -> str:
        """Commit hosts over their stored version; the new epoch."""
        changes = [Put(HostRecord(host, {"note": note}, {}), version) for host in hosts]
        return self._runner.run(self.catalog.commit(changes, audit=AUDIT)).epoch

    def delete(self, host: str, version: int) -> str:
        """Commit a delete; the new epoch."""
        return self._runner.run(self.catalog.commit([Delete(Kind.HOST, host, version)], audit=AUDIT)).epoch

    def close(self) -> None:
        """End the loop."""
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture
def writer(redis_url: str) -> Iterator[Writer]:
    """Someone who commits to the test's store."""
    made = Writer(redis_url)
    yield made
    made.close()


# --- read ------------------------------------------------------------------------------------------------------------


def test_an_empty_store_has_the_empty_epoch(execute: Execute) -> None:
    """Before the first commit every record is absent, as of the epoch ``""``."""
    assert read(execute, ["tenant:a", "key:b"], cell="0") == Snapshot(
        "", {"tenant:a": None, "key:b": None}, frozenset()
    )
    assert read(execute, [], cell="0") == Snapshot("", {}, frozenset())


def test_records_come_with_their_epoch(execute: Execute, writer: Writer) -> None:
    """Present and absent records, as of the epoch in force, in one command."""
    epoch = writer.put("a")
    commands: list[tuple[Any, ...]] = []

    def counted(*command: Any) -> Any:
        commands.append(command)
        return execute(*command)

    snapshot = read(counted, ["host:a", "host:b"], cell="0")
    assert snapshot == Snapshot(epoch, {"host:a": HostRecord("a", {"note": ""}, {}), "host:b": None}, frozenset())
    assert [command[0] for command in commands] == ["MGET"]


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"null", b"\xff", b'{"id": "b", "paths": {}}', b'{"id":"a","paths":{},"models":{}}']
)
def test_a_damaged_record_fails_alone(execute: Execute, writer: Writer, store: redis.Redis, damaged: bytes) -> None:
    """One damaged record, or one that is another's, is named, and the others are read."""
    epoch = writer.put("a")
    store.set("tk:rec:host:b", damaged)
    snapshot = read(execute, ["host:b", "host:a"], cell="0")
    assert snapshot.corrupt == {"host:b"}
    assert snapshot.records == {"host:b": None, "host:a": HostRecord("a", {"note": ""}, {})}
    assert snapshot.epoch == epoch


def test_a_lost_connection_is_the_callers_to_judge() -> None:
    """What the connection raises comes through as it is."""

    def broken(*_: Any) -> Any:
        raise redis.ConnectionError("gone")

    for ask in (lambda: read(broken, ["host:a"], cell="0"), lambda: catch_up(broken, "1-a", cell="0")):
        with pytest.raises(redis.ConnectionError, match="gone"):
            ask()


# --- catch_up --------------------------------------------------------------------------------------------------------


def test_nothing_changed(execute: Execute, writer: Writer) -> None:
    """At the epoch in force, the empty one included, the delta is empty."""
    assert catch_up(execute, "", cell="0") == Delta("", frozenset())
    epoch = writer.put("a")
    assert catch_up(execute, epoch, cell="0") == Delta(epoch, frozenset())


def test_exactly_what_changed_is_told(execute: Execute, writer: Writer) -> None:
    """Puts and deletes of every commit since, and nothing from before."""
    writer.put("before")
    first = writer.put("a")
    writer.put("b", "c")
    last = writer.delete("a", 1)
    assert catch_up(execute, first, cell="0") == Delta(last, frozenset({"host:a", "host:b", "host:c"}))


@pytest.mark.parametrize("nameless", [True, False])
def test_from_the_empty_store_nothing_can_be_told(
    execute: Execute,
    writer: Writer,
    store: redis.Redis,
    nameless: bool,  # noqa: FBT001
) -> None:
    """What was read of an empty store is worth nothing once something is committed: start afresh."""
    if nameless:
        store.xadd("tk:feed:{0}", {"x": "y"}, id="1-0")
    writer.put("a")
    assert catch_up(execute, "", cell="0") is None


def _flush(store: redis.Redis) -> None:
    store.flushdb()


def _forge_own_entry(store: redis.Redis) -> None:
    store.delete("tk:feed:{0}")
    for counter in range(2, 5):
        store.xadd("tk:feed:{0}", {"epoch": f"{counter}-0000000000000000", "refs": ""}, id=f"{counter}-0")


_LOSSES: dict[str, Callable[[redis.Redis], Any]] = {
    "everything lost": _flush,
    "feed lost": lambda store: store.delete("tk:feed:{0}"),
    "epoch lost": lambda store: store.delete("tk:epoch:{0}"),
    "own entry trimmed": lambda store: store.xtrim("tk:feed:{0}", maxlen=2, approximate=False),
    "all trimmed": lambda store: store.xtrim("tk:feed:{0}", maxlen=0, approximate=False),
    "an entry missing": lambda store: store.xdel("tk:feed:{0}", "3-0"),
    "last entry missing": lambda store: store.xdel("tk:feed:{0}", "4-0"),
    "own entry missing": lambda store: store.xdel("tk:feed:{0}", "2-0"),
    "another history": _forge_own_entry,
    "a strange entry": lambda store: store.xadd("tk:feed:{0}", {"epoch": "5-a", "refs": ""}, id="5-1"),
    "epoch lost, and a nameless entry": lambda store: (
        store.delete("tk:epoch:{0}"),
        store.xadd("tk:feed:{0}", {"x": "y"}, id="5-0"),
    ),
    "another epoch": lambda store: store.set("tk:epoch:{0}", "4-ffffffffffffffff"),
}


@pytest.mark.parametrize("loss", _LOSSES.values(), ids=_LOSSES)
def test_a_feed_that_cannot_tell_says_so(
    execute: Execute, writer: Writer, store: redis.Redis, loss: Callable[[redis.Redis], Any]
) -> None:
    """Lost, trimmed, torn or of another history: the answer is None, never a part of the changes."""
    epochs = [writer.put(host) for host in "abcd"]
    assert catch_up(execute, epochs[1], cell="0") is not None
    loss(store)
    assert catch_up(execute, epochs[1], cell="0") is None


def test_a_lost_store_that_counts_as_far_again_is_noticed(execute: Execute, writer: Writer, store: redis.Redis) -> None:
    """After a loss the counter passes the old numbers again, with other random bits: never taken for the old epochs."""
    old = [writer.put(host) for host in "abc"]
    store.flushdb()
    new = [writer.put(host) for host in "abcdef"]
    assert [catch_up(execute, epoch, cell="0") for epoch in old] == [None, None, None]
    assert catch_up(execute, new[2], cell="0") == Delta(new[-1], frozenset({"host:d", "host:e", "host:f"}))


@pytest.mark.parametrize("epoch", ["x", "-", "7-zz", "99-0000000000000000", "☃-1", "٣-x"])
def test_an_unknown_epoch_is_not_caught_up(execute: Execute, writer: Writer, epoch: str) -> None:
    """An epoch ahead of the store, or none at all, raises nothing and tells nothing."""
    writer.put("a")
    assert catch_up(execute, epoch, cell="0") is None


def test_a_reader_far_behind_starts_afresh(execute: Execute, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of catching up is bounded: as many changes as the bound are told, one more is not."""
    monkeypatch.setattr(reader, "MAX_DELTA_ENTRIES", 3)
    epochs = [writer.put(host) for host in "abcde"]
    assert catch_up(execute, epochs[1], cell="0") == Delta(epochs[-1], frozenset({"host:c", "host:d", "host:e"}))
    assert catch_up(execute, epochs[0], cell="0") is None


def test_a_commit_between_the_two_questions_does_no_harm(execute: Execute, writer: Writer) -> None:
    """A change that lands after the epoch was read is told along, with its own epoch."""
    first, _ = writer.put("a"), writer.put("b")
    landed: list[str] = []

    def interrupted(*command: Any) -> Any:
        if command[0] == "XRANGE":
            landed.append(writer.put("c"))
        return execute(*command)

    assert catch_up(interrupted, first, cell="0") == Delta(landed[0], frozenset({"host:b", "host:c"}))


# --- follow ----------------------------------------------------------------------------------------------------------


def _blocked(store: redis.Redis) -> bool:
    return int(store.info("clients")["blocked_clients"]) > 0


def _await_blocked(store: redis.Redis) -> None:
    """Wait until a client is blocked in the store, which says so itself."""
    for _ in range(10_000):
        if _blocked(store):
            return
    pytest.fail("nobody blocked")


@pytest.mark.parametrize("commits_before", [0, 1, 3])
def test_a_follower_is_woken_by_a_commit(
    execute: Execute, writer: Writer, store: redis.Redis, commits_before: int
) -> None:
    """A blocked follower learns of the commit at once, long before its wait would end."""
    epoch = ["", *(writer.put(f"h{number}") for number in range(commits_before))][-1]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, execute, epoch, 60_000, cell="0")
        _await_blocked(store)
        last = writer.put("new")
        assert following.result(20) == (Delta(last, frozenset({"host:new"})) if epoch else None)


def test_a_follower_behind_does_not_wait(execute: Execute, writer: Writer) -> None:
    """What changed before the wait began is told at once."""
    first, last = writer.put("a"), writer.put("b")
    assert follow(execute, first, 60_000, cell="0") == Delta(last, frozenset({"host:b"}))


def test_a_wait_without_changes_ends_empty(execute: Execute, writer: Writer) -> None:
    """At the end of the wait the delta is empty and the epoch the same."""
    assert follow(execute, "", 1, cell="0") == Delta("", frozenset())
    epoch = writer.put("a")
    assert follow(execute, epoch, 1, cell="0") == Delta(epoch, frozenset())


def test_a_loss_is_noticed_when_the_wait_ends(execute: Execute, writer: Writer, store: redis.Redis) -> None:
    """A store emptied under a follower wakes nobody, but the end of the wait tells."""
    epoch = [writer.put(host) for host in "abc"][-1]
    store.flushdb()
    writer.put("a")
    assert follow(execute, epoch, 1, cell="0") is None


@pytest.mark.parametrize("epoch_left", [True, False])
def test_a_feed_ahead_of_the_epoch_is_no_busy_loop(
    execute: Execute,
    writer: Writer,
    store: redis.Redis,
    epoch_left: bool,  # noqa: FBT001
) -> None:
    """In a damaged store whose feed runs ahead the follower still blocks, and learns of the next commit."""
    first = writer.put("a")
    writer.put("b")
    store.set("tk:epoch:{0}", first) if epoch_left else store.delete("tk:epoch:{0}")
    epoch = first if epoch_left else ""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, execute, epoch, 60_000, cell="0")
        _await_blocked(store)
        last = writer.put("c")
        expected = Delta(last, frozenset({"host:b", "host:c"})) if epoch_left else None
        assert following.result(20) == expected


# --- while commits run -----------------------------------------------------------------------------------------------


def _commit_pairs(url: str, number: int, done: threading.Event) -> None:
    """Commit two hosts together, each time with the number of the commit in both."""
    writer = Writer(url)
    try:
        for commit in range(number):
            writer.put("left", "right", version=commit, note=str(commit + 1))
    finally:
        writer.close()
        done.set()


def _note(snapshot: Snapshot, ref: str) -> str:
    record = snapshot.records[ref]
    assert isinstance(record, HostRecord)
    return record.paths["note"]


def test_a_snapshot_is_of_one_epoch(execute: Execute, redis_url: str) -> None:
    """While another process commits, records and epoch always belong together: neither older nor newer."""
    done, snapshots = threading.Event(), []
    committing = threading.Thread(target=_commit_pairs, args=(redis_url, 400, done), name="committing")
    committing.start()
    while not done.is_set():
        snapshots.append(read(execute, ["host:left", "host:right"], cell="0"))
    committing.join()
    seen = {snapshot.epoch: snapshot for snapshot in snapshots if snapshot.epoch}
    assert len(seen) > 20
    for epoch, snapshot in seen.items():
        counter = epoch.split("-")[0]
        assert (_note(snapshot, "host:left"), _note(snapshot, "host:right")) == (counter, counter)


def test_a_followed_cache_is_the_store(execute: Execute, another_execute: Execute, redis_url: str) -> None:
    """A cache kept by following alone equals a fresh read as of the same epoch, at every step while commits run."""
    done = threading.Event()
    refs = ["host:left", "host:right", "host:nobody"]
    cache = read(execute, refs, cell="0")
    committing = threading.Thread(target=_commit_pairs, args=(redis_url, 300, done), name="committing")
    committing.start()
    compared = 0
    while not done.is_set() or compared < 3:
        delta = follow(execute, cache.epoch, 20, cell="0")
        changed = refs if delta is None else sorted(delta.refs)
        fresh = read(execute, changed, cell="0")
        if delta is None or fresh.epoch == delta.epoch:
            cache = Snapshot(fresh.epoch, cache.records | fresh.records, frozenset())
        truth = read(another_execute, refs, cell="0")
        if truth.epoch == cache.epoch:
            compared += 1
            assert cache.records == truth.records
    committing.join()
