"""Writes down once a second what the gate has counted of subjects.

Owns the thread ``usage-writer`` and a link of its own to the budgets store. Nobody waits for it. What cannot be written
is kept, bounded, and sent again under its number, so that it is written once; a gate that is killed loses what it
counted since the last flush. A script keeps the store no longer than one that takes, and the next one waits as long as
it took.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from ratelimit.usage.book import UsageBook
from ratelimit.usage.counted import Counted
from ratelimit.usage.counting import count
from ratelimit.usage.metrics import UsageMetrics
from ratelimit.windows.limiter import Execute
from ratelimit.windows.sizing import BatchSizer
from runtime.lifecycle import fault_told
from runtime.store.cluster import AnyLink

FLUSH_S: Final = 1.0
"""How long counts wait in the gate, and so what one that is killed loses."""
FIRST_FLUSH: Final = 64
LARGEST_FLUSH: Final = 256
MAX_WAITING: Final = 100_000
"""Most subjects that wait for a store; while there are more, nothing is taken out of the book, which is bounded."""
MAX_AGE_MS: Final = 1_800_000
"""How long counts wait for a store. It remembers for longer which flush was written."""
MISSED_MOST: Final = 10
"""How often tokens are tried of a subject without usage: another gate may have yet to write its first call."""
PATIENCE_MS: Final = 2_000
_ID_BYTES: Final = 8

_log = logging.getLogger(__name__)


class UsageWriter:
    """``start`` and ``stop`` own the thread."""

    def __init__(
        self,
        book: UsageBook,
        *,
        make: Callable[[], AnyLink],
        cell_of: Callable[[str], int],
        metrics: UsageMetrics,
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
    ) -> None:
        """``cell_of``: the cell that has a subject's usage; raises ``ValueError`` for a name that none can have."""
        self._book = book
        self._make = make
        self._cell_of = cell_of
        self._metrics = metrics
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._gate = os.urandom(_ID_BYTES).hex()
        self._cells: dict[int, _Cell] = {}
        self._sizer = BatchSizer(first=FIRST_FLUSH, largest=LARGEST_FLUSH)
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._link: AnyLink | None = None
        self._is_done = False
        self._thread = threading.Thread(target=self._run, name="usage-writer", daemon=True)
        metrics.waiting.set_function(lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """Subjects whose counts are not written yet, but for those in the book."""
        return sum(len(cell) for cell in list(self._cells.values()))

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write what was counted until now, as far as the store has it in time, and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._abandoned.set()
        if self._link is not None:
            self._link.interrupt()
        if left := self.waiting + len(self._book):
            _log.warning("stopped with the usage of %d subjects not written", left)

    def _run(self) -> None:
        with fault_told(_log, "the writer of usage", self._on_fault):
            while not self._is_done:
                self._write_on_one_link()

    def _write_on_one_link(self) -> None:
        """Write once a second until the link fails or the gate stops, and then once more."""
        link = self._link = self._make()
        execute = partial(self._execute, link)
        try:
            link.connect()
            while not self._stopping.wait(FLUSH_S):
                self.flush(execute)
            self.flush(execute)
        except (RedisError, OSError, UnicodeError):
            self._metrics.errors.inc()
            self._is_done = self._stopping.is_set()
            self._stopping.wait(FLUSH_S)
            self._take_up()
        else:
            self._is_done = True
        finally:
            link.close()

    def _execute(self, link: AnyLink, *command: Any) -> Any:
        return link.execute(self._now_ms() + PATIENCE_MS, *command)

    def flush(self, execute: Execute) -> None:
        """Write all that was counted until now; raises what the store raises when every cell has been tried."""
        self._take_up()
        trouble: RedisError | None = None
        for number, cell in list(self._cells.items()):
            try:
                self._write(execute, str(number), cell)
            except RedisError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _take_up(self) -> None:
        """Take out of the book what was counted, and give up what has waited too long."""
        for cell in self._cells.values():
            self._lose(cell.too_old(self._now_ms()))
        if self.waiting < MAX_WAITING:
            for subject, counted in self._book.drain().items():
                self._wait(subject, counted)

    def _wait(self, subject: str, counted: Counted) -> None:
        try:
            number = self._cell_of(subject)
        except ValueError:  # no name of ours begins like this
            self._lose([counted])
            return
        cell = self._cells.get(number)
        if cell is None:
            cell = self._cells[number] = _Cell(self._now_ms())
        cell.wait(subject, counted)

    def _write(self, execute: Execute, name: str, cell: _Cell) -> None:
        """Write what waits for a cell, a script at a time; what fails is sent again as it was."""
        missing: list[tuple[str, Counted]] = []
        while sent := cell.sent(self._sizer.calls):
            flushed = count(execute, name, self._gate, cell.number, sent)
            cell.written(self._now_ms())
            self._sizer.learn(len(sent), flushed.spent_us)
            self._metrics.faults.inc(flushed.faults)
            gone = set(flushed.missing)
            missing += [one for one in sent if one[0] in gone]
            if self._abandoned.wait(0 if self._stopping.is_set() else flushed.spent_us / 1e6):
                break
        for subject, counted in missing:
            counted.missed += 1
            if counted.missed < MISSED_MOST:
                cell.wait(subject, counted)

    def _lose(self, counted: Iterable[Counted]) -> None:
        self._metrics.lost.inc(sum(one.calls for one in counted))


class _Cell:
    """What waits for a cell, and what was sent to it without an answer."""

    def __init__(self, now_ms: float) -> None:
        self.number = 0  # of the flush that was sent last
        self._written_ms = now_ms
        self._sent: list[tuple[str, Counted]] = []
        self._waiting: dict[str, Counted] = {}

    def __len__(self) -> int:
        return len(self._sent) + len(self._waiting)

    def wait(self, subject: str, counted: Counted) -> None:
        """Have a subject's counts wait, with those that wait already."""
        if (before := self._waiting.get(subject)) is None:
            self._waiting[subject] = counted
        else:
            before.add(counted)

    def sent(self, most: int) -> list[tuple[str, Counted]]:
        """What is to be sent under ``number``: again what got no answer, else some of what waits."""
        if not self._sent and self._waiting:
            self._sent = [(name, self._waiting.pop(name)) for name in list(itertools.islice(self._waiting, most))]
            self.number += 1
        return self._sent

    def written(self, now_ms: float) -> None:
        """What was sent is written."""
        self._sent, self._written_ms = [], now_ms

    def too_old(self, now_ms: float) -> list[Counted]:
        """Give up what has waited for too long."""
        if not len(self):
            self._written_ms = now_ms
        if now_ms - self._written_ms <= MAX_AGE_MS:
            return []
        lost = [counted for _, counted in self._sent] + list(self._waiting.values())
        self._sent, self._waiting, self._written_ms = [], {}, now_ms
        return lost
