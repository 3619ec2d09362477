"""The record cache: every entry is true as of one epoch."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from catalog.records import TenantRecord
from extauth.records.cache import RecordCache
from extauth.records.entries import TenantEntry, entry_of

NAMES = st.sampled_from(["tenant:a", "tenant:b", "tenant:c"])


def entry(version: int) -> TenantEntry:
    """An entry that shows its version."""
    made = entry_of(TenantRecord("t", 0, 0, 0, version=version))
    assert isinstance(made, TenantEntry)
    return made


class Histories(RuleBasedStateMachine):
    """A store that changes, readers that come late and in any order, and a feed that may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = RecordCache(max_entries=2)
        self.epochs = [""]
        self.versions: list[dict[str, int]] = [{"tenant:a": 0, "tenant:b": 0, "tenant:c": 0}]
        self.held: list[tuple[str, dict[str, TenantEntry]]] = []

    @rule(name=NAMES)
    def change(self, name: str) -> None:
        """The store moves on; nobody tells the cache."""
        latest = dict(self.versions[-1])
        latest[name] += 1
        self.versions.append(latest)
        self.epochs.append(f"{len(self.epochs)}-x")

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        """A reader reads now and inserts later."""
        self.held.append((self.epochs[-1], {name: entry(self.versions[-1][name])}))

    @rule(at=st.integers(min_value=0))
    def insert(self, at: int) -> None:
        """Some held read arrives."""
        if self.held:
            self.cache.insert(*self.held.pop(at % len(self.held)))

    @rule(seen=st.integers(min_value=0))
    def follow(self, seen: int) -> None:
        """A delta computed from some epoch, perhaps long ago, arrives."""
        begin = seen % len(self.epochs)
        before, now = self.versions[begin], self.versions[-1]
        self.cache.advance(self.epochs[begin], self.epochs[-1], [name for name in now if now[name] != before[name]])

    @rule()
    def lose(self) -> None:
        """Nobody can tell what changed."""
        self.cache.reset(self.epochs[-1])

    @invariant()
    def entries_are_of_the_epoch(self) -> None:
        """What is in the cache was current at its epoch, and there is never too much."""
        epoch, entries = self.cache.look(["tenant:a", "tenant:b", "tenant:c"])
        then = self.versions[self.epochs.index(epoch)]
        assert all(one.record.version == then[name] for name, one in entries.items() if isinstance(one, TenantEntry))
        assert len(self.cache) <= 2


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
