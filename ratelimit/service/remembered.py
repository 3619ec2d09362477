"""What was made of a call's bytes, kept for the next call of the same bytes: bounded in bytes, whatever callers send.

Nothing is kept of bytes that come once: their hash is noted, and what is made of them the second time is kept. So a
flood of values that are all different costs no more memory than hashes, and takes no room from what is in use. What is
kept lies in two halves; what the older one is asked for moves to the younger one, and when that is full the older one
goes as a whole. Knows nothing of what it keeps.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Made = TypeVar("Made")

MAX_PAYLOAD_BYTES: Final = 1_024
"""Of larger calls nothing is kept."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Most memory of all that is kept, as it was measured for calls of one to sixteen descriptors."""
MAX_SEEN: Final = 16_384
"""Most hashes of bytes that came once; 1 MiB with their set."""
ENTRY_BYTES: Final = 1_024
BYTES_A_PAYLOAD_BYTE: Final = 32
"""What keeping one costs, in bytes: descriptors are objects, with a subject and a name each."""


class Remembered(Generic[Made]):
    """Values by the bytes that they were made of. For one thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._room = max_bytes // 2
        self._young: dict[bytes, Made] = {}
        self._old: dict[bytes, Made] = {}
        self._young_bytes = 0
        self._seen: set[int] = set()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._young) + len(self._old)

    def get(self, payload: bytes) -> Made | None:
        """What was kept of these bytes."""
        made = self._young.get(payload)
        if made is None and (made := self._old.pop(payload, None)) is not None:
            self._keep(payload, made)
        return made

    def offer(self, payload: bytes, made: Made) -> None:
        """Keep it, if the same was offered a short while ago."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            return
        trace = hash(payload)  # keyed anew in each process
        if trace in self._seen:
            self._seen.discard(trace)
            self._keep(payload, made)
            return
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(trace)

    def _keep(self, payload: bytes, made: Made) -> None:
        cost = ENTRY_BYTES + BYTES_A_PAYLOAD_BYTE * len(payload)
        if self._young_bytes + cost > self._room:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[payload] = made
        self._young_bytes += cost
