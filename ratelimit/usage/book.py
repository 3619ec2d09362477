"""What a gate counts of subjects between two flushes: calls admitted, tokens charged, how calls ended.

Beside the way of calls, so it is cheap: a batch counts a set of subjects once, however many of its calls name them,
and what it says of each subject is worked out by whoever drains it. Bounded; thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from ratelimit.usage.counted import MINUTE_MS, Counted

MAX_SUBJECTS: Final = 100_000
"""Most sets of subjects that a book holds, some 300 bytes each; what comes to others beyond is lost, and counted."""

Subjects = tuple[str, ...]
"""Names that are counted together: those of a call (``k:…``, ``p:…``), the publication's last."""


class UsageBook:
    """Any thread counts; one drains."""

    def __init__(self, on_lost: Callable[[int], object] = lambda _calls: None, *, most: int = MAX_SUBJECTS) -> None:
        """``on_lost``: told of admitted calls for which there was no room."""
        self._on_lost = on_lost
        self._most = most
        self._lock = threading.Lock()
        self._admitted: dict[tuple[int, Subjects], list[int]] = {}  # of a minute -> calls, when the last one was
        self._ended: dict[str, Counted] = {}

    def __len__(self) -> int:
        """How much waits: sets of subjects and subjects."""
        return len(self._admitted) + len(self._ended)

    def admitted(self, subjects: Subjects, calls: int, now_ms: int) -> None:
        """Count admitted calls, ``now_ms`` by the clock of the script that admitted them."""
        key = (now_ms // MINUTE_MS, subjects)
        with self._lock:
            counted = self._admitted.get(key)
            if counted is not None:
                counted[0] += calls
                counted[1] = max(counted[1], now_ms)
            elif len(self._admitted) < self._most:
                self._admitted[key] = [calls, now_ms]
            else:
                self._on_lost(calls)

    def charged(self, subjects: Subjects, tokens: int, now_ms: int) -> None:
        """Count tokens that a call was charged when it ended; what a late settlement takes back is negative."""
        if tokens:
            with self._lock:
                for subject in subjects:
                    self._of(subject).charged(tokens, now_ms)

    def told(self, publication: str, now_ms: int, above: int, usage: bool | None) -> None:  # noqa: FBT001  as a Settlement has it
        """Note of a publication that the end of a call was told.

        ``above``: its tokens that were not held; ``usage``: whether its answer told usage, ``None``: it could not.
        """
        with self._lock:
            self._of(publication).told(now_ms, above, usage)

    def presumed(self, publication: str, admitted_ms: float) -> None:
        """Note of a publication that nobody told in time how a call ended."""
        with self._lock:
            self._of(publication).presumed(admitted_ms)

    def _of(self, subject: str) -> Counted:
        counted = self._ended.get(subject)
        if counted is None:
            counted = Counted()
            if len(self._ended) < self._most:
                self._ended[subject] = counted
            else:
                self._on_lost(0)
        return counted

    def drain(self) -> dict[str, Counted]:
        """Take out what has been counted, by subject."""
        with self._lock:
            admitted, self._admitted = self._admitted, {}
            found, self._ended = self._ended, {}
        _add(found, admitted.items())
        return found


def _add(found: dict[str, Counted], admitted: Iterable[tuple[tuple[int, Subjects], list[int]]]) -> None:
    for (_, subjects), (calls, last_ms) in admitted:
        for subject in subjects:
            counted = found.get(subject)
            if counted is None:
                counted = found[subject] = Counted()
            counted.admitted(calls, last_ms)
