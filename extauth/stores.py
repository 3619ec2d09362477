"""The stores as one batch sees them: a way to ask each, and what proves that cached records are current. Pure.

With one store its epoch proves the records: they are read together with it, and the taking script compares it.
With two, the budgets store has an epoch of its own in every cell, which each change raises before it is answered.
A gate holds one that it learnt *before* it found its cache to be current; while that epoch is in force no change has
been answered since. What was learnt on one link is worth nothing on the next: a store may have come back older.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

Execute = Callable[..., Any]
"""Sends one command to a store and returns its reply, within the batch's deadline; raises redis-py's errors."""

ExecuteMany = Callable[[Sequence[tuple[Any, ...]]], list[Any]]
"""Sends commands together; a reply for each, in order, an error as a ``RedisError`` in its place."""

UNPROVED: Final = "-"
"""An epoch that is never in force."""


class RecordsBehindError(ResponseError):
    """The records store does not have what the budgets store was told of: it is deposed, or it has lost changes."""

    def __init__(self, epoch: str) -> None:
        super().__init__(f"BEHIND it does not have change {epoch}, of which the budgets store was told")


class ProvedEpochs:
    """The epochs of one link to a budgets store, by cell, for which the cache is known to be current.

    Each holds for one history of the cache: one that begins anew may have been read in another store.
    """

    def __init__(self) -> None:
        self._epochs: dict[int, tuple[str, int]] = {}

    def of(self, cell: int, history: int) -> str:
        """The epoch to ask for in this cell."""
        epoch, proved = self._epochs.get(cell, (UNPROVED, history))
        return epoch if proved == history else UNPROVED

    def prove(self, cell: int, epoch: str, history: int) -> None:
        """Take in an epoch that was in force before the cache was found to be current."""
        self._epochs[cell] = (epoch, history)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The link to the budgets store: for one cell, and for several at once."""

    execute: Execute
    execute_many: ExecuteMany


@dataclass(frozen=True, slots=True)
class Stores:
    """The links that one batch goes by."""

    records: Execute
    budgets: Budgets
    proved: ProvedEpochs | None  # None: one store, whose epoch is the records' own

    @classmethod
    def one(cls, execute: Execute) -> Stores:
        """One store for records and budgets, of one cell."""
        return cls(execute, Budgets(execute, lambda commands: [execute(*command) for command in commands]), None)
