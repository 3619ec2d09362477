"""Gets the facts of calls: from the cache where it has them, else from the store; all of a batch from one epoch.

Owns what is known to be absent or unreadable, and how the cache is brought to the present. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from catalog.store.reader import Delta, Snapshot, counter_of
from extauth.decide import Facts
from extauth.events import UNHEARD, Events
from extauth.facts import (
    Named,
    Presented,
    facts_of,
    first_refs,
    needed_refs,
    owner_refs,
    routed_refs,
    second_refs,
    server_ref,
)
from extauth.records.cache import RecordCache
from extauth.records.entries import Entry, RouteEntry, entry_of
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


Stage = Callable[[dict[str, Entry]], set[str]]
"""Names records by those that are here."""


@dataclass(slots=True)
class Question:
    """What a batch asks of the records, and what was learnt while asking."""

    calls: dict[int, Call] = field(default_factory=dict)  # one whose body was read takes the place of the one before
    presented: dict[int, Presented] = field(default_factory=dict)
    named: dict[int, Named] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)  # names without a record, as of `absent_epoch`
    corrupt: set[str] = field(default_factory=set)  # names whose record cannot be read, likewise
    absent_epoch: str = ""
    read_epoch: str | None = None  # in force at some moment since these calls came; None: not looked at yet

    def note(self, index: int, call: Call, presented: Presented, named: Named) -> None:
        """Take in a call of the batch."""
        self.calls[index], self.presented[index], self.named[index] = call, presented, named

    def stages(self, indexes: Sequence[int]) -> tuple[Stage, ...]:
        """Name the records of these calls, each time by those that are here by then.

        Those that the calls name themselves; those that these name; the publications that routes lead to; and those
        that publications name: as a rule the keys' tenants, which are here.
        """
        calls = [(self.calls[index], self.named[index]) for index in indexes]

        def first(_entries: dict[str, Entry]) -> set[str]:
            return {name for _, named in calls for name in first_refs(named)}

        def second(entries: dict[str, Entry]) -> set[str]:
            return {name for call, named in calls for name in second_refs(call, named, entries)}

        def routed(entries: dict[str, Entry]) -> set[str]:
            if not any(isinstance(entry, RouteEntry) for entry in entries.values()):
                return set()
            return {name for call, named in calls for name in routed_refs(call, named, entries)}

        def last(entries: dict[str, Entry]) -> set[str]:
            servers = {server_ref(call, named, entries) for call, named in calls}
            return owner_refs(entries) | servers - {""}

        return first, second, routed, last

    def facts(self, index: int, entries: dict[str, Entry]) -> Facts:
        """Say what the records tell about a call."""
        return facts_of(self.calls[index], self.named[index], entries)

    def is_readable(self, index: int, entries: dict[str, Entry]) -> bool:
        """Whether every record that a call needs can be read."""
        return self.corrupt.isdisjoint(needed_refs(self.calls[index], self.named[index], entries))

    def note_absent(self, epoch: str, names: Iterable[str]) -> None:
        """Remember that there are no such records, as of this epoch."""
        if self.absent_epoch != epoch:
            self.absent, self.corrupt, self.absent_epoch = set(), set(), epoch
        self.absent |= set(names)

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
        epoch, entries = self._collect(question, question.stages(indexes), execute)
        return _gathered(question, indexes, epoch, entries)

    def listed(self, question: Question, names: set[str], execute: Execute) -> dict[str, Entry]:
        """Return these publications, and whose they are; raises as ``gather``."""
        return self._collect(question, (lambda _entries: names, owner_refs), execute)[1]

    def _collect(self, question: Question, stages: Sequence[Stage], execute: Execute) -> tuple[str, dict[str, Entry]]:
        """Look and read, stage by stage, until all is known as of one epoch."""
        read = 0
        for _ in range(GATHER_ROUNDS):
            epoch, entries, wanted = self._cache.epoch, dict[str, Entry](), set[str]()
            for stage in stages:
                more = stage(entries) - wanted
                if not more:
                    continue
                wanted |= more
                missing = self._look(question, epoch, more, entries)
                if missing is None:
                    break
                read += len(missing)
                if missing and not self._fetch(question, epoch, missing, entries, execute):
                    break
            else:
                self._on.gathered(len(wanted), read)
                return epoch, entries
        raise RecordsChangingError

    def _look(self, question: Question, epoch: str, names: set[str], entries: dict[str, Entry]) -> list[str] | None:
        """Add those that the cache has; the names that must be read. ``None``: the cache has moved on."""
        then, found = self._cache.look(names)
        if then != epoch:
            return None
        entries |= found
        if len(found) == len(names):
            return []
        return self._unknown(question, epoch, names, entries)

    def _unknown(self, question: Question, epoch: str, wanted: set[str], entries: dict[str, Entry]) -> list[str]:
        """Name what has to be read. Of what is missing, the cache too may know that there is none."""
        missing = question.unknown(epoch, wanted, entries)
        absent = [name for name in missing if self._cache.is_absent(name)]
        if not absent or self._cache.epoch != epoch:  # noted at another epoch, perhaps
            return missing
        question.note_absent(epoch, absent)
        return [name for name in missing if name not in question.absent]

    def _fetch(
        self, question: Question, epoch: str, missing: list[str], entries: dict[str, Entry], execute: Execute
    ) -> bool:
        """Read what is missing and add it; False where it is of another epoch than what was found so far.

        A record enters the cache only if it was read at the cache's own epoch.
        """
        snapshot = self._records.read(execute, missing)
        question.read_epoch = snapshot.epoch
        read, unusable = _entries(snapshot)
        corrupt = snapshot.corrupt | unusable
        absent = [name for name in missing if name not in read]
        if not self._cache.insert(snapshot.epoch, read, absent=[name for name in absent if name not in corrupt]):
            self.catch_up(execute)
            return False
        question.note_absent(snapshot.epoch, absent)
        question.corrupt |= corrupt
        entries |= read
        return snapshot.epoch == epoch

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
