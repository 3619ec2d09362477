"""Records and their changes as readers of the hot path see them: as of one epoch.

Reads only, one command at a time through a function that the caller gives; knows no connection, no cache and no
deadline. What that function raises (no connection, no answer) passes through.

An epoch is opaque but for its counter. ``""`` is the epoch of a store where nothing was ever committed, or
everything was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from catalog.cell_number import require
from catalog.records import Kind, Record, decode
from catalog.store import names

Execute = Callable[..., Any]
"""Sends one command and returns the server's reply as it came: bytes, integers and lists, nothing parsed."""

MAX_DELTA_ENTRIES: Final = 1_000
"""Changes told one by one; a reader further behind starts afresh."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some records, all as of one epoch."""

    epoch: str  # "7-90ab…"; "" where none is set
    records: dict[str, Record | None]  # every reference asked for; None: there is none, or it is corrupt
    corrupt: frozenset[str]  # references whose stored value cannot be read


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed from one epoch to a newer one: records not named here are the same at both."""

    epoch: str  # the newer one; the given one when nothing changed
    refs: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the feed."""

    counter: int  # -1 where the id is not one that commits give
    epoch: str
    refs: tuple[str, ...]


def read(execute: Execute, refs: Sequence[str], *, cell: str) -> Snapshot:
    """Read records together with the epoch in force, in one atomic command. A corrupt record fails alone."""
    epoch, *values = execute("MGET", names.epoch(cell), *map(names.record, refs))
    records: dict[str, Record | None] = {}
    corrupt = set()
    for ref, raw in zip(refs, values, strict=True):
        try:
            records[ref] = None if raw is None else _decoded(ref, raw)
        except ValueError:
            records[ref] = None
            corrupt.add(ref)
    return Snapshot(_text(epoch), records, frozenset(corrupt))


def catch_up(execute: Execute, epoch: str, *, cell: str) -> Delta | None:
    """Tell what changed from ``epoch`` until now, or None when the feed cannot tell.

    None means: drop everything read at ``epoch``. It is the answer when the epoch's own entry is not in the feed
    (trimmed, lost, or the epoch is of another history), when entries are missing between, when feed and epoch
    disagree, when more than ``MAX_DELTA_ENTRIES`` changes lie between, and from ``""`` whenever an epoch is set.
    The epoch is read before the feed: an entry of it must then be there, and entries after it do no harm.
    """
    now = _text(execute("GET", names.epoch(cell)))
    if now == epoch:
        return Delta(epoch, frozenset())
    if not (now and epoch):
        return None
    return delta_of(epoch, now, execute(*history(epoch, cell=cell)))


def history(epoch: str, *, cell: str) -> tuple[Any, ...]:
    """Give the command that reads the feed from an epoch on."""
    return ("XRANGE", names.feed(cell), f"{counter_of(epoch)}-0", "+", "COUNT", MAX_DELTA_ENTRIES + 2)


def delta_of(epoch: str, now: str, reply: Iterable[Sequence[Any]]) -> Delta | None:
    """Make of the feed's entries what ``catch_up`` tells; ``now``: the epoch that was read before them."""
    entries = [_entry(raw) for raw in reply]
    if len(entries) > MAX_DELTA_ENTRIES + 1 or not _tells(entries, epoch, now):
        return None
    return Delta(entries[-1].epoch, frozenset(ref for entry in entries[1:] for ref in entry.refs))


def knows(execute: Execute, epoch: str, *, cell: str) -> bool:
    """Whether an epoch was in force here, within the time that the feed tells of; ``""`` was everywhere."""
    if not epoch:
        return True
    name = f"{counter_of(epoch)}-0"
    return any(_entry(raw).epoch == epoch for raw in execute("XRANGE", names.feed(cell), name, name))


def told(execute: Execute, *, cell: str, cells: int) -> tuple[str, str]:
    """Read at one instant the epoch of a cell of the budgets' store, and the records' epoch that it was told of.

    ``cells``: into how many the reader splits the budgets; raises ``CellsDifferError`` where the cell has another.
    """
    epoch, records, agreed = execute("MGET", names.epoch(cell), names.records(cell), names.cells(cell))
    require([agreed], cells)
    return _text(epoch), _text(records)


def follow(execute_blocking: Execute, epoch: str, block_ms: int, *, cell: str) -> Delta | None:
    """Wait for a change after ``epoch``, ``block_ms`` at most, then answer as ``catch_up`` does.

    When nothing changed the answer is an empty delta. A feed that was lost wakes nobody and is noticed when the
    wait ends. A feed that runs ahead of the epoch (a damaged store) is waited for at its own end, so that following
    it is never a busy loop.
    """
    delta = None
    for after in (f"{counter_of(epoch)}-0", "$"):
        woken = execute_blocking("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", names.feed(cell), after)
        delta = catch_up(execute_blocking, epoch, cell=cell)
        if not woken or delta is None or delta.epoch != epoch:
            break
    return delta


def _decoded(ref: str, raw: bytes) -> Record:
    """Decode a record; raises ``ValueError`` where it is corrupt or not the one named."""
    kind, _, record_id = ref.partition(":")
    record = decode(Kind(kind), raw)
    if record.id != record_id:
        raise ValueError("the record stored under this reference is another one")
    return record


def _tells(entries: Sequence[_Entry], epoch: str, now: str) -> bool:
    """Say whether the entries are the whole history from ``epoch`` to ``now`` and perhaps beyond."""
    epochs = [entry.epoch for entry in entries]
    return epochs[:1] == [epoch] and now in epochs and _contiguous(entry.counter for entry in entries)


def _contiguous(counters: Iterable[int]) -> bool:
    return all(later == earlier + 1 for earlier, later in pairwise(counters))


def _entry(raw: Sequence[Any]) -> _Entry:
    entry_id, flat = raw
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    counter, _, sequence = _text(entry_id).partition("-")
    return _Entry(
        counter=int(counter) if sequence == "0" else -1,
        epoch=_text(fields.get(b"epoch")),
        refs=tuple(_text(fields.get(b"refs")).split()),
    )


def counter_of(epoch: str) -> int:
    """Return the counter of an epoch; 0, which no commit gives, for what is not an epoch."""
    counter, _, _ = epoch.partition("-")
    return int(counter) if counter.isascii() and counter.isdecimal() else 0


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "replace")
