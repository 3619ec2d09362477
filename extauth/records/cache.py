"""The gate's copy of records, true as of one epoch. Thread-safe; no I/O.

Every entry was current at ``epoch``: a record enters only when it was read at exactly that epoch, and the epoch moves
on only together with dropping everything that changed in between. So whoever decides on entries of one look and then
has the epoch compared in the taking script never admits on an old record.

No call may wait for the cache as a whole. So entries are kept in parts: a part that grows is copied, and one whose
entries are all out of date is emptied, in about a millisecond, when a call comes to it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from extauth.records.entries import Entry
from extauth.records.marks import Marks

MAX_ENTRIES: Final = 200_000
"""About 600 bytes each for keys, 120 MB. Beyond it those go first that no call has used for the longest time."""

MAX_ABSENT: Final = 10_000
"""Names known to have no record; beyond it the ones noted first go first."""
ABSENT_MS: Final = 5_000
"""How long a name is taken to have no record without asking again, if the feed does not move before."""

T = TypeVar("T")

NO_EPOCH: Final = ""
_PARTS: Final = 256  # a power of two
_LEAST_OF_A_PART: Final = 64


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


class _Part:
    """Some of the entries, the last used last; those of an ended life are gone once it is looked at."""

    __slots__ = ("entries", "life")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.life = 0

    def live(self, life: int) -> OrderedDict[str, Entry]:
        """Return the entries of this life of the cache."""
        if self.life != life:
            self.entries.clear()
            self.life = life
        return self.entries


class RecordCache:
    """Entries by record reference, all of one epoch; and apart from them the names that have no record.

    Every look is a use: where a part is full, its entry that was not used for the longest time goes.
    """

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_absent: int = MAX_ABSENT,
        now_ms: Callable[[], float] = _monotonic_ms,
    ) -> None:
        parts = _PARTS if max_entries >= _PARTS * _LEAST_OF_A_PART else 1
        self._max_of_a_part = max_entries // parts
        self._max_absent = max_absent
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._epoch = NO_EPOCH
        self._history = 0
        self._parts = [_Part() for _ in range(parts)]
        self._which = parts - 1  # the bits of a name's hash that choose its part
        self._absent_until_ms: OrderedDict[str, float] = OrderedDict()
        self.marks = Marks()
        """Of the records that somebody holds to; what changed is struck before the epoch moves."""

    @property
    def epoch(self) -> str:
        """The epoch of every entry."""
        return self._epoch

    @property
    def history(self) -> int:
        """Another number whenever it was forgotten how the epoch came about: as long as it is the same, by the feed."""
        return self._history

    def __len__(self) -> int:
        return sum(len(part.entries) for part in self._parts if part.life == self._history)

    def look(self, refs: Iterable[str]) -> tuple[str, dict[str, Entry]]:
        """Return the epoch and those of the entries that are here, as of that epoch."""
        parts, which, found = self._parts, self._which, {}
        with self._lock:
            life = self._history
            for ref in refs:
                part = parts[hash(ref) & which]
                entries = part.entries if part.life == life else part.live(life)
                entry = entries.get(ref)
                if entry is not None:
                    entries.move_to_end(ref)
                    found[ref] = entry
            return self._epoch, found

    def insert(self, epoch: str, entries: Mapping[str, Entry], *, absent: Iterable[str] = ()) -> bool:
        """Take in what was read at ``epoch``; refuses it (False) unless that is the cache's own.

        ``absent``: names that were asked for and have no record.
        """
        with self._lock:
            if epoch != self._epoch:
                return False
            for ref, entry in entries.items():
                part = self._part(ref)
                part[ref] = entry
                part.move_to_end(ref)
                if len(part) > self._max_of_a_part:
                    part.popitem(last=False)
            self._note_absent(absent)
            return True

    def _part(self, ref: str) -> OrderedDict[str, Entry]:
        return self._parts[hash(ref) & self._which].live(self._history)

    def _note_absent(self, names: Iterable[str]) -> None:
        until_ms = self._now_ms() + ABSENT_MS
        for name in names:
            self._absent_until_ms[name] = until_ms
            self._absent_until_ms.move_to_end(name)  # the latest stand last
        while len(self._absent_until_ms) > self._max_absent:
            self._absent_until_ms.popitem(last=False)

    def is_absent(self, name: str) -> bool:
        """Whether a name had no record when it was asked for, some seconds ago at most, and no change came since."""
        until_ms = self._absent_until_ms.get(name)
        return until_ms is not None and self._now_ms() < until_ms

    def advance(self, seen: str, epoch: str, changed: Iterable[str]) -> None:
        """Move from epoch ``seen`` to ``epoch``, dropping what changed; does nothing if the cache has moved already."""
        with self._lock:
            if self._epoch != seen:
                return
            names = tuple(changed)
            self.marks.strike(names)
            for ref in names:
                self._part(ref).pop(ref, None)
            self._absent_until_ms.clear()
            self._epoch = epoch

    def reset(self, epoch: str) -> None:
        """Forget everything and begin again at ``epoch``: for when nobody can tell what changed."""
        with self._lock:
            self.marks.strike_all()
            self._history += 1
            self._absent_until_ms.clear()
            self._epoch = epoch

    def locked(self, act: Callable[[], T]) -> T:
        """Do something brief while nothing changes here: neither the epoch nor what the marks stand for."""
        with self._lock:
            return act()
