"""What this gate has learnt of each publication: samples gathered as calls are settled, percentiles for those to come.

Written by the settler's thread, read by the one that decides. Knows the store only as whoever gives ``execute``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.learning import Sample, learn
from ratelimit.windows.levels import Level, subject_name

MAX_PUBLICATIONS: Final = 10_000
"""Publications of which something is remembered here; beyond it all is read from the store again."""
MAX_CALLERS: Final = 100
"""Callers of one publication whose samples wait for the next telling."""
MAX_SAMPLES: Final = 200
"""Samples of one caller that do; more say nothing new."""


class LessonBook:
    """What is known of every publication."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[int, str], dict[str, list[Sample]]] = defaultdict(dict)  # by caller
        self._learned: dict[str, Learned] = {}

    def of(self, publication: str) -> Learned:
        """What a publication's calls turned out to cost, as last told by the store."""
        return self._learned.get(publication, UNLEARNED)

    def wants(self, cell: int, publication: str, caller: str) -> bool:
        """Whether there is room for what another call of this caller teaches; what others taught is read anyway."""
        by_caller = self._waiting[cell, publication]
        return len(by_caller[caller]) < MAX_SAMPLES if caller in by_caller else len(by_caller) < MAX_CALLERS

    def note(self, cell: int, publication: str, caller: str, sample: Sample | None) -> None:
        """Take note of one settled call; ``caller`` tells callers apart, no more.

        One that teaches nothing (``sample`` is None) has what others taught read: gates of whose calls nobody reads
        usage estimate by it.
        """
        by_caller = self._waiting[cell, publication]
        if sample is None:
            return
        if caller in by_caller or len(by_caller) < MAX_CALLERS:
            of_this_one = by_caller.setdefault(caller, [])
            if len(of_this_one) < MAX_SAMPLES:
                of_this_one.append(sample)

    def tell(self, execute: Callable[..., Any]) -> None:
        """Bring what waits to the store, and read what all gates have learnt; raises what ``execute`` raises."""
        while self._waiting:
            (cell, publication), by_caller = self._waiting.popitem()
            if len(self._learned) >= MAX_PUBLICATIONS:
                self._learned.clear()
            subject = subject_name(Level.PUBLICATION, publication)
            self._learned[publication] = learn(execute, str(cell), subject, by_caller).learned
