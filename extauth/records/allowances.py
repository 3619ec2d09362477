"""What a caller may do beside its calls, each by a budget of its own: list models, and make bad calls. Pure.

Neither takes anything of the budgets that a key, its tenant or a publication has; both are counted in the store, so
that all gates together hold them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from catalog.records import Limits
from extauth.records.entries import subject_of
from ratelimit.windows.budgets import Subject
from ratelimit.windows.levels import Level

PER_MINUTE: Final = 60
"""Of each, unless a setting says otherwise: more than a client that works needs, and few enough for a broken one."""
MAX_READY: Final = 10_000
"""Subjects kept ready, some 500 bytes each: the calls of a batch share what is asked of the store for one key."""


@dataclass(frozen=True, slots=True)
class Allowances:
    """How often in any minute."""

    lists_per_minute: int = PER_MINUTE
    errors_per_minute: int = PER_MINUTE

    def lists(self, key: str) -> Subject:
        """What is counted of a key's questions about models."""
        return _subject(Level.MODEL_LIST, key, self.lists_per_minute)

    def lists_without_key(self, address: Subject) -> Subject:
        """The same of callers without a key, by what is counted of their address at a publication."""
        return _subject(Level.MODEL_LIST, address.name.partition(":")[2], self.lists_per_minute)

    def errors(self, key: str) -> Subject:
        """What is counted of a key's bad calls."""
        return _subject(Level.ERRORS, key, self.errors_per_minute)


ALLOWED: Final = Allowances()


@functools.lru_cache(maxsize=MAX_READY)
def _subject(level: Level, whose: str, per_minute: int) -> Subject:
    return subject_of(level, whose, Limits(per_minute=per_minute))
