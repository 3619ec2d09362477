"""A limiter whose admitted calls are counted as a gate counts them, and written at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gate.usage import count_admitted
from ratelimit.usage.book import UsageBook
from ratelimit.usage.counting import count
from ratelimit.windows.budgets import Draw, Taken
from ratelimit.windows.limiter import Execute, Limiter

_FLUSHES = itertools.count(1)


class CountingLimiter:
    """Of cell 0: a limiter around one, as a compiled one has no subclasses."""

    def __init__(self, **how: Any) -> None:
        """``how``: the limiter's."""
        self._limiter = Limiter(**how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._limiter, name)

    def take(self, execute: Execute, draws: Sequence[Draw], **how: Any) -> Taken:
        """Decide, and write the usage of those admitted before it is told."""
        taken = self._limiter.take(execute, draws, **how)
        if not how.get("look"):
            write_usage(execute, taken)
        return taken


def write_usage(execute: Execute, taken: Taken) -> None:
    """Count what was admitted and write it."""
    book = UsageBook()
    count_admitted(book, taken)
    counted = list(book.drain().items())
    if counted:
        assert count(execute, "0", "tests", next(_FLUSHES), counted).faults == 0
