"""Gets the facts of calls: from the cache where it has them, else from the store; all of a batch from one epoch.

Owns what is known to be absent or unreadable, and how the cache is brought to the present. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from catalog.store.reader import Delta, Snapshot, counter_of
from extauth.decide import Facts
from extauth.events import UNHEARD, Events
from extauth.facts import Presented, facts_of, first_refs, needed_refs, owner_refs, second_refs
from extauth.records.cache import RecordCache
from extauth.records.entries import Entry, entry_of
from extauth.request.call import Call
from extauth.stores import Execute, RecordsBehindError

GATHER_ROUNDS: Final = 8
"""Rounds of reading before giving up on records that change faster than they can be read."""


class Records(Protocol):
    """Reads records and what changed; ``catalog.store.reader`` is the real one."""

    def read(self, execute: Execute, refs: Sequence[str]) -> Snapshot:
        """Read records together with the epoch."""
        ...

    def catch_up(self, execute: Execute, epoch: str) -> Delta | None:
        """Tell what changed since ``epoch``; ``None`` when nobody can tell."""
        ...

    def knows(self, execute: Execute, epoch: str) -> bool:
        """Whether an epoch was ever in force where this is asked."""
        ...


class RecordsChangingError(Exception):
    """The records change faster than they can be read consistently."""


@dataclass(slots=True)
class Question:
    """What a batch asks of the records, and what was learnt while asking."""

    calls: Sequence[Call]
    presented: Sequence[Presented]
    absent: set[str] = field(default_factory=set)  # names without a record, as of `absent_epoch`
    corrupt: set[str] = field(default_factory=set)  # names whose record cannot be read, likewise
    absent_epoch: str = ""
    read_epoch: str | None = None  # in force at some moment since these calls came; None: not looked at yet

    def first_refs(self, index: int) -> list[str]:
        """Name the records that a call names itself."""
        return first_refs(self.calls[index], self.presented[index])

    def second_refs(self, index: int, entries: dict[str, Entry]) -> list[str]:
        """Name the records that its first ones name."""
        return second_refs(self.calls[index], self.presented[index], entries)

    def facts(self, index: int, entries: dict[str, Entry]) -> Facts:
        """Say what the records tell about a call."""
        return facts_of(self.calls[index], self.presented[index], entries)

    def is_readable(self, index: int, entries: dict[str, Entry]) -> bool:
        """Whether every record that a call needs can be read."""
        return self.corrupt.isdisjoint(needed_refs(self.calls[index], self.presented[index], entries))

    def unknown(self, epoch: str, wanted: Iterable[str], entries: dict[str, Entry]) -> list[str]:
        """Return those of the names about which nothing is known at this epoch."""
        known_absent = self.absent if self.absent_epoch == epoch else ()
        return [r for r in wanted if r not in entries and r not in known_absent]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Facts of one epoch."""

    epoch: str
    facts: dict[int, Facts]  # by the call's index
    unreadable: tuple[int, ...]  # calls that need a record nobody can read


class Gatherer:
    """Reads through the cache."""

    def __init__(self, cache: RecordCache, records: Records, on: Events = UNHEARD) -> None:
        self._on = on
        self._cache = cache
        self._records = records

    def gather(self, question: Question, indexes: Sequence[int], execute: Execute) -> Gathered:
        """Return the facts of these calls, all as of one epoch; raises ``RecordsChangingError``."""
        first = {name for index in indexes for name in question.first_refs(index)}
        read = 0
        for _ in range(GATHER_ROUNDS):
            epoch, entries = self._cache.look(first)
            missing = question.unknown(epoch, first, entries)
            if not missing:
                second = {name for index in indexes for name in question.second_refs(index, entries)}
                epoch_then, more = self._cache.look(second)
                if epoch_then != epoch:
                    continue
                entries |= more
                missing = question.unknown(epoch, second, entries)
            if not missing and (owners := owner_refs(entries)):  # as a rule the key's tenant, which is here
                second |= owners
                epoch_then, more = self._cache.look(owners)
                if epoch_then != epoch:
                    continue
                entries |= more
                missing = question.unknown(epoch, owners, entries)
            if not missing:
                self._on.gathered(len(first | second), read)
                return _gathered(question, indexes, epoch, entries)
            self._fetch(question, missing, execute)
            read += len(missing)
        raise RecordsChangingError

    def _fetch(self, question: Question, missing: list[str], execute: Execute) -> None:
        """Read what is missing; a record enters the cache only if it was read at the cache's own epoch."""
        snapshot = self._records.read(execute, missing)
        question.read_epoch = snapshot.epoch
        entries, unusable = _entries(snapshot)
        corrupt = snapshot.corrupt | unusable
        absent = [name for name in missing if name not in entries]
        if not self._cache.insert(snapshot.epoch, entries, absent=[name for name in absent if name not in corrupt]):
            self.catch_up(execute)
            return
        if question.absent_epoch != snapshot.epoch:
            question.absent, question.corrupt, question.absent_epoch = set(), set(), snapshot.epoch
        question.corrupt |= corrupt
        question.absent |= set(absent)

    def in_force(self, question: Question, epoch: str, execute: Execute) -> bool:
        """Whether this epoch was in force since the calls came: a refusal must not rest on what was put right."""
        return question.read_epoch == epoch or self._records.read(execute, ()).epoch == epoch

    def require(self, epochs: Iterable[str], execute: Execute) -> int:
        """Hold the cache to epochs that others know; returns the history of the cache that has them all.

        Raises ``RecordsBehindError``, also where the cache was read in another store than the one that is asked.
        """
        history, current = self._cache.history, self._cache.epoch  # in this order: a newer history is proved anew
        for epoch in {*epochs, current}:
            if counter_of(epoch) > counter_of(current) or not self._records.knows(execute, epoch):
                raise RecordsBehindError(epoch)
        return history

    def catch_up(self, execute: Execute) -> None:
        """Bring the cache to the present by the feed, or empty it when the feed cannot tell what changed."""
        seen = self._cache.epoch
        delta = self._records.catch_up(execute, seen)
        if delta is None:
            self._cache.reset(self._records.read(execute, ()).epoch)
        else:
            self._cache.advance(seen, delta.epoch, delta.refs)


def _gathered(question: Question, indexes: Sequence[int], epoch: str, entries: dict[str, Entry]) -> Gathered:
    unreadable: tuple[int, ...] = ()
    if question.corrupt:
        unreadable = tuple(index for index in indexes if not question.is_readable(index, entries))
    facts = {index: question.facts(index, entries) for index in indexes if index not in unreadable}
    return Gathered(epoch, facts, unreadable)


def _entries(snapshot: Snapshot) -> tuple[dict[str, Entry], set[str]]:
    """Make the records ready; with the names of those that no decision can use (a limit out of range)."""
    entries: dict[str, Entry] = {}
    unusable = set()
    for name, record in snapshot.records.items():
        try:
            entry = entry_of(record) if record is not None else None
        except ValueError:
            unusable.add(name)
            continue
        if entry is not None:
            entries[entry.ref] = entry  # by its own text: the cache is to hold one text, not two
    return entries, unusable
