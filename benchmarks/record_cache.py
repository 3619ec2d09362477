"""What a full record cache costs a gate: memory, pauses, and a look.

Usage: ``python -m benchmarks.record_cache [ENTRIES]``. Fills the cache with keys as a gate reads them (JSON to entry),
then puts twice as many more through it, all evictions. Pauses are processor time of the one thread, so that other
work on the machine does not count; collections are timed by the collector's own callbacks.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

from catalog.ids import new_id
from catalog.records import Credential, KeyRecord, Kind, Limits, decode, encode
from extauth.records.cache import MAX_ENTRIES, RecordCache
from extauth.records.entries import entry_of
from runtime.collector import spare_what_lives

ROUNDS = 3
LOOKS = 200_000


def stored(number: int) -> bytes:
    """A key's record with four limits, of a publication of its own."""
    credential = Credential(f"{number:043}=", (1,), mac_key=1)
    uid, publication = new_id(1, os.urandom), new_id(1, os.urandom)
    tenant, limits = f"tenant-{number % 1000}", Limits(10, 100, 5_000, 100_000)
    return encode(KeyRecord(uid, tenant, "my key", (publication,), credential, 1, 1, limits=limits))


def resident_mb() -> float:
    """What the process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Collections:
    """The longest collections seen, by generation."""

    def __init__(self) -> None:
        self.longest_ms = [0.0, 0.0, 0.0]
        self.count = [0, 0, 0]
        self._begun = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._begun = time.thread_time()
            return
        generation = info["generation"]
        self.count[generation] += 1
        spent_ms = (time.thread_time() - self._begun) * 1e3
        self.longest_ms[generation] = max(self.longest_ms[generation], spent_ms)


def fill(cache: RecordCache, entries: int) -> float:
    """Put so many keys into the cache; the longest of them, in milliseconds."""
    longest_s = 0.0
    for number in range(entries):
        raw = stored(number)
        begun = time.thread_time()
        entry = entry_of(decode(Kind.KEY, raw))
        if entry is not None:
            cache.insert("", {entry.ref: entry})
        longest_s = max(longest_s, time.thread_time() - begun)
    return longest_s * 1e3


def main() -> None:
    """Print one line a round."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else MAX_ENTRIES
    cache = RecordCache(max_entries=entries)
    spare_what_lives()
    collections, before_mb = Collections(), resident_mb()
    for number in range(ROUNDS):
        longest_ms, held_mb = fill(cache, entries), resident_mb() - before_mb
        print(f"round {number}: {len(cache)} entries, {held_mb:.0f} MB, longest insert {longest_ms:.1f} ms")
    begun = time.thread_time()
    gc.collect()
    print(f"a full collection: {(time.thread_time() - begun) * 1e3:.1f} ms")
    print(
        f"collections by generation: {collections.count}, longest ms {[round(ms, 1) for ms in collections.longest_ms]}"
    )
    refs = [next(iter(part.entries)) for part in cache._parts[:4]]  # noqa: SLF001
    begun = time.thread_time()
    for _ in range(LOOKS // len(refs)):
        cache.look(refs)
    print(f"a look: {(time.thread_time() - begun) / LOOKS * 1e9:.0f} ns a record")


if __name__ == "__main__":
    main()
