"""The gate's copy of records, true as of one epoch. Thread-safe; no I/O.

Every entry was current at ``epoch``: a record enters only when it was read at exactly that epoch, and the epoch moves
on only together with dropping everything that changed in between. So whoever decides on entries of one look and then
has the epoch compared in the taking script never admits on an old record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Final

from extauth.entries import Entry

MAX_ENTRIES: Final = 200_000
"""About 1 KiB each. Beyond it the entries that came first go first; they are read again when needed."""

NO_EPOCH: Final = ""


class RecordCache:
    """Entries by record reference, all of one epoch."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._epoch = NO_EPOCH
        self._entries: dict[str, Entry] = {}

    @property
    def epoch(self) -> str:
        """The epoch of every entry."""
        return self._epoch

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, refs: Iterable[str]) -> tuple[str, dict[str, Entry]]:
        """Return the epoch and those of the entries that are here, as of that epoch."""
        with self._lock:
            entries = self._entries
            return self._epoch, {ref: entry for ref in refs if (entry := entries.get(ref)) is not None}

    def insert(self, epoch: str, entries: Mapping[str, Entry]) -> bool:
        """Take in entries read at ``epoch``; refuses them (False) unless that is the cache's own."""
        with self._lock:
            if epoch != self._epoch:
                return False
            self._entries.update(entries)
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]
            return True

    def advance(self, seen: str, epoch: str, changed: Iterable[str]) -> None:
        """Move from epoch ``seen`` to ``epoch``, dropping what changed; does nothing if the cache has moved already."""
        with self._lock:
            if self._epoch != seen:
                return
            for ref in changed:
                self._entries.pop(ref, None)
            self._epoch = epoch

    def reset(self, epoch: str) -> None:
        """Forget everything and begin anew at ``epoch``: for when nobody can tell what changed."""
        with self._lock:
            self._entries.clear()
            self._epoch = epoch
