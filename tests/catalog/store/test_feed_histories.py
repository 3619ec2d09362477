"""Any history of commits and losses: what a reader is told against what is really different."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.actors import Recordless
from catalog.changes import Audit, Change, Committed, Delete, Put
from catalog.records import HostRecord, Kind, Record
from catalog.store.reader import catch_up, read
from catalog.store.store import CatalogStore, Conflict

_AUDIT = Audit(actor=Recordless.START, action="test", target="", tenant="", request_id="")
_HOSTS = ("a", "b", "c")
_REFS = [f"host:{host}" for host in _HOSTS]

_CHANGES = st.dictionaries(st.sampled_from(_HOSTS), st.booleans(), max_size=3)  # host -> put, else delete
_STEPS = st.one_of(
    st.tuples(st.just("commit"), _CHANGES),
    st.tuples(st.just("commit"), _CHANGES),
    st.tuples(st.just("commit"), _CHANGES),
    st.tuples(st.just("conflict"), _CHANGES),
    st.tuples(st.just("trim"), st.integers(0, 4)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("lose feed"), st.none()),
    st.tuples(st.just("lose entry"), st.integers(1, 8)),
    st.tuples(st.just("save"), st.none()),
    st.tuples(st.just("fall back"), st.none()),
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a reader saw at some moment, and what has changed since."""

    epoch: str
    records: dict[str, Record | None]
    told: bool  # whether the feed had his epoch and lost nothing since, so that it must be able to tell
    changed: frozenset[str] = frozenset()  # references committed since


class History:
    """The real store, a plain model of its records, and readers that saw it at every step."""

    def __init__(self, url: str, execute: Callable[..., Any]) -> None:
        self._runner = asyncio.Runner()
        self._client = redis.asyncio.Redis.from_url(url)
        self._catalog = CatalogStore(self._client)
        self.store = redis.Redis.from_url(url)
        self._execute = execute
        self.restart()

    def restart(self) -> None:
        """Empty everything."""
        self.store.flushdb()
        self.model: dict[str, HostRecord] = {}
        self._saved: tuple[dict[bytes, bytes], dict[str, HostRecord]] = ({}, {})
        self.seen: list[Seen] = []
        self.epochs: list[str] = []

    def close(self) -> None:
        """End the loop and the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()
        self.store.close()

    def look(self) -> None:
        """Let one more reader see the store as it is."""
        snapshot = read(self._execute, _REFS, cell="0")
        assert {ref: record for ref, record in snapshot.records.items() if record} == self.model
        self.seen.append(Seen(snapshot.epoch, snapshot.records, told=self._in_feed(snapshot.epoch)))

    def _in_feed(self, epoch: str) -> bool:
        """Say whether the feed ends with the epoch's own entry."""
        last: list[tuple[bytes, dict[bytes, bytes]]] = self.store.xrevrange("tk:feed:{0}", count=1)  # type: ignore[assignment]
        return bool(last) and last[0][1][b"epoch"].decode() == epoch

    def step(self, name: str, argument: Any) -> None:
        """Let one thing happen."""
        getattr(self, "_" + name.replace(" ", "_"))(argument)

    def _commit(self, changes: dict[str, bool]) -> None:
        planned = [change for host, put in changes.items() if (change := self._change(host, put=put))]
        committed = self._run(planned)
        self.epochs.append(committed.epoch)
        for change in planned:
            self.model.pop(_ref(change), None)
        self.model |= committed.records  # type: ignore[arg-type]
        refs = frozenset(_ref(change) for change in planned)
        self.seen = [dataclasses.replace(seen, changed=seen.changed | refs) for seen in self.seen]

    def _change(self, host: str, *, put: bool) -> Change | None:
        current = self.model.get(f"host:{host}")
        version = current.version if current else 0
        if put:
            return Put(HostRecord(host, {"commit": str(len(self.epochs))}, {}), version)
        return Delete(Kind.HOST, host, version) if current else None

    def _conflict(self, changes: dict[str, bool]) -> None:
        planned = [change for host in changes if (change := self._change(host, put=True))]
        wrong = dataclasses.replace(planned[0], expected_version=77) if planned else Delete(Kind.HOST, "x", 1)
        with pytest.raises(Conflict):
            self._run([*planned[1:], wrong])

    def _run(self, changes: list[Change]) -> Committed:
        return self._runner.run(self._catalog.commit(changes, audit=_AUDIT))

    def _lost(self) -> None:
        self.seen = [dataclasses.replace(seen, told=False) for seen in self.seen]

    def _trim(self, length: int) -> None:
        self.store.xtrim("tk:feed:{0}", maxlen=length, approximate=False)
        self._lost()

    def _flush(self, _: None) -> None:
        self.store.flushdb()
        self.model = {}
        self._lost()

    def _lose_feed(self, _: None) -> None:
        self.store.delete("tk:feed:{0}")
        self._lost()

    def _lose_entry(self, counter: int) -> None:
        self.store.xdel("tk:feed:{0}", f"{counter}-0")
        self._lost()

    def _save(self, _: None) -> None:
        dump = {key: self.store.dump(key) for key in self.store.scan_iter()}
        self._saved = (dump, dict(self.model))  # type: ignore[assignment]

    def _fall_back(self, _: None) -> None:
        """A replica that missed the latest commits takes over, or an old backup is restored."""
        dump, model = self._saved
        self.store.flushdb()
        for key, value in dump.items():
            self.store.restore(key, 0, value)
        self.model = dict(model)
        self._lost()

    def judge(self) -> None:
        """Compare what every reader is told now with what is different from what he saw."""
        now = read(self._execute, _REFS, cell="0")
        for seen in self.seen:
            delta = catch_up(self._execute, seen.epoch, cell="0")
            if delta is None:
                assert not seen.told
                continue
            different = {ref for ref in _REFS if seen.records[ref] != now.records[ref]}
            assert delta.epoch == now.epoch
            assert different <= delta.refs
            if seen.told:
                assert delta.refs == seen.changed


def _ref(change: Change) -> str:
    return f"host:{change.record.id if isinstance(change, Put) else change.id}"


@pytest.fixture
def history(redis_url: str, execute: Callable[..., Any]) -> Iterator[History]:
    """A history on the test's store."""
    made = History(redis_url, execute)
    yield made
    made.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=25))
def test_a_reader_is_told_every_difference(history: History, steps: list[tuple[str, Any]]) -> None:
    """Whoever is told a delta is told all that differs for him, and exactly the changes while nothing is lost.

    Through commits, conflicts, trims, losses and fallbacks to an older state.
    """
    history.restart()
    for name, argument in steps:
        history.look()
        history.step(name, argument)
    history.judge()
    assert len(set(history.epochs)) == len(history.epochs)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=st.lists(_CHANGES, min_size=1, max_size=15))
def test_the_feed_has_no_gaps(history: History, commits: list[dict[str, bool]]) -> None:
    """One entry a commit, numbered without gaps, the last one's epoch in force; the index names what there is."""
    history.restart()
    for changes in commits:
        history.step("commit", changes)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = history.store.xrange("tk:feed:{0}")  # type: ignore[assignment]
    assert [entry_id for entry_id, _ in entries] == [b"%d-0" % number for number in range(1, len(commits) + 1)]
    assert [fields[b"epoch"].decode() for _, fields in entries] == history.epochs
    assert history.store.get("tk:epoch:{0}") == history.epochs[-1].encode()
    indexed = history.store.zrange("tk:index:host", 0, -1)
    assert [f"host:{host.decode()}" for host in indexed] == sorted(history.model)
