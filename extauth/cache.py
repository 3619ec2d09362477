"""The gate's copy of records, true as of one epoch. Thread-safe; no I/O.

Every entry was current at ``epoch``: a record enters only when it was read at exactly that epoch, and the epoch moves
on only together with dropping everything that changed in between. So whoever decides on entries of one look and then
has the epoch compared in the taking script never admits on an old record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from extauth.entries import Entry

MAX_ENTRIES: Final = 200_000
"""About 1 KiB each. Beyond it the entries that came first go first; they are read again when needed."""

MAX_ABSENT: Final = 10_000
"""Names known to have no record; beyond it the ones noted first go first."""
ABSENT_MS: Final = 5_000
"""How long a name is taken to have no record without asking again, if the feed does not move before."""

NO_EPOCH: Final = ""


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


class RecordCache:
    """Entries by record reference, all of one epoch; and apart from them the names that have no record."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_absent: int = MAX_ABSENT,
        now_ms: Callable[[], float] = _monotonic_ms,
    ) -> None:
        self._max_entries = max_entries
        self._max_absent = max_absent
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._epoch = NO_EPOCH
        self._history = 0
        self._entries: dict[str, Entry] = {}
        self._absent_until_ms: dict[str, float] = {}

    @property
    def epoch(self) -> str:
        """The epoch of every entry."""
        return self._epoch

    @property
    def history(self) -> int:
        """Another number whenever it was forgotten how the epoch came about: as long as it is the same, by the feed."""
        return self._history

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, refs: Iterable[str]) -> tuple[str, dict[str, Entry]]:
        """Return the epoch and those of the entries that are here, as of that epoch."""
        with self._lock:
            entries = self._entries
            return self._epoch, {ref: entry for ref in refs if (entry := entries.get(ref)) is not None}

    def insert(self, epoch: str, entries: Mapping[str, Entry], *, absent: Iterable[str] = ()) -> bool:
        """Take in what was read at ``epoch``; refuses it (False) unless that is the cache's own.

        ``absent``: names that were asked for and have no record.
        """
        with self._lock:
            if epoch != self._epoch:
                return False
            self._entries.update(entries)
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]
            self._note_absent(absent)
            return True

    def _note_absent(self, names: Iterable[str]) -> None:
        until_ms = self._now_ms() + ABSENT_MS
        for name in names:
            self._absent_until_ms.pop(name, None)  # the latest stand last
            self._absent_until_ms[name] = until_ms
        while len(self._absent_until_ms) > self._max_absent:
            del self._absent_until_ms[next(iter(self._absent_until_ms))]

    def is_absent(self, name: str) -> bool:
        """Whether a name had no record when it was asked for, some seconds ago at most, and no change came since."""
        until_ms = self._absent_until_ms.get(name)
        return until_ms is not None and self._now_ms() < until_ms

    def advance(self, seen: str, epoch: str, changed: Iterable[str]) -> None:
        """Move from epoch ``seen`` to ``epoch``, dropping what changed; does nothing if the cache has moved already."""
        with self._lock:
            if self._epoch != seen:
                return
            for ref in changed:
                self._entries.pop(ref, None)
            self._absent_until_ms.clear()
            self._epoch = epoch

    def reset(self, epoch: str) -> None:
        """Forget everything and begin anew at ``epoch``: for when nobody can tell what changed."""
        with self._lock:
            self._history += 1
            self._entries.clear()
            self._absent_until_ms.clear()
            self._epoch = epoch
