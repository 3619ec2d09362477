"""Settlements whose usage is written at once: what a gate's book and writer do once a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import redis

from ratelimit.tokens.ledger import Ledger, Settled, Settlement
from ratelimit.tokens.settling.usage import note_usage
from ratelimit.usage.book import UsageBook
from ratelimit.usage.counting import count
from ratelimit.windows.limiter import Execute
from tests.support.oldsettling import OldLedger


def settle(execute: Execute, ledger: Ledger | OldLedger, settlements: Sequence[Settlement], **options: Any) -> Settled:
    """End these reservations, and write what that adds to usage in cell 0."""
    settled, faults = settle_and_write(execute, ledger, settlements, **options)
    assert faults == 0
    return settled


def settle_and_write(
    execute: Execute, ledger: Ledger | OldLedger, settlements: Sequence[Settlement], **options: Any
) -> tuple[Settled, int]:
    """The same, and of how many subjects usage could not be written."""
    settled = ledger.settle(execute, settlements, **options)
    if isinstance(ledger, OldLedger):  # its script has counted
        return settled, 0
    book = UsageBook()
    note_usage(book, settlements, settled)
    return settled, write(execute, book)


class AtOnce:
    """Counts as a gate's book does, and writes each time; the cell of a subject is the number behind its colon."""

    def __init__(self, url: str) -> None:
        self._store = redis.Redis.from_url(url)

    def charged(self, subjects: tuple[str, ...], tokens: int, now_ms: int) -> None:
        """Count and write tokens."""
        self._write(subjects, lambda book: book.charged(subjects, tokens, now_ms))

    def told(self, publication: str, now_ms: int, above: int, usage: bool | None) -> None:  # noqa: FBT001  as the book has it
        """Count and write that an end was told."""
        self._write((publication,), lambda book: book.told(publication, now_ms, above, usage))

    def presumed(self, publication: str, admitted_ms: float) -> None:
        """Count and write that none was."""
        self._write((publication,), lambda book: book.presumed(publication, admitted_ms))

    def _write(self, subjects: tuple[str, ...], note: Callable[[UsageBook], None]) -> None:
        book = UsageBook()
        note(book)
        cells = {subject.partition(":")[2] for subject in subjects}
        for cell in cells:
            assert write(self._store.execute_command, book, cell) == 0


def write(execute: Execute, book: UsageBook, cell: str = "0") -> int:
    """Write what a book holds; the subjects of which something could not be written."""
    counted = list(book.drain().items())
    return count(execute, cell, os.urandom(8).hex(), 1, counted).faults if counted else 0
