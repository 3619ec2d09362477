"""What the gate counts of the calls that it admits, and who writes it down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry

from catalog.ids import cell_of
from ratelimit.usage.book import UsageBook
from ratelimit.usage.metrics import UsageMetrics
from ratelimit.usage.writer import UsageWriter
from ratelimit.windows.budgets import Answer, Charge, Taken
from runtime.store.cluster import AnyLink


def count_admitted(book: UsageBook, taken: Taken) -> None:
    """Count the admitted calls of a batch, by the clock of the script that admitted them."""
    calls: dict[Charge, int] = {}
    for grant in taken.grants:
        if grant.answer is Answer.ADMITTED:
            charge = grant.draw.charge
            calls[charge] = calls.get(charge, 0) + 1
    for charge, count in calls.items():
        if charge.usage:
            book.admitted(charge.usage, count, taken.now_ms)


class Usage:
    """The book that a gate counts in, and the thread that writes it down."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        make: Callable[[], AnyLink],
        cells: int,
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
    ) -> None:
        metrics = UsageMetrics(registry)
        self.book = UsageBook(metrics.lost.inc)
        self.writer = UsageWriter(
            self.book,
            make=make,
            cell_of=partial(_cell_of, cells),
            metrics=metrics,
            on_fault=on_fault,
            now_ms=now_ms,
        )


def _cell_of(cells: int, subject: str) -> int:
    """The cell of a key or a publication, whose id stands behind what kind it is."""
    return cell_of(subject.partition(":")[2], cells)
