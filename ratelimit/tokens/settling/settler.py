"""Settles calls that have ended, and sweeps those of which nobody ever tells.

Owns the thread ``settler`` and a link of its own to the budgets store. Nobody waits for it: what it is told waits
here, bounded, until the store has it; settling twice changes nothing, so whatever fails is tried again. It goes from
cell to cell, a script at a time: each keeps the store no longer than one that takes, and then all settling rests for
as long as it took (``ratelimit.tokens.ledger``), so a backlog never shuts out calls. What a turn does is
``ratelimit.tokens.settling.cells``' business.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from ratelimit.tokens.endings import Told
from ratelimit.tokens.ledger import Ledger
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.settling.backlog import Backlog, Waiting
from ratelimit.tokens.settling.cell_troubles import CellTroubles
from ratelimit.tokens.settling.cells import CellSettling
from ratelimit.tokens.settling.metrics import SettlementMetrics
from ratelimit.tokens.settling.pace import MAX_BATCH
from ratelimit.tokens.settling.runs import Runs
from ratelimit.tokens.settling.sweeps import Sweeps
from ratelimit.tokens.settling.usage import Usage
from runtime.lifecycle import fault_told
from runtime.store.cluster import AnyLink

MAX_WAITING: Final = 20_000
"""Most ended calls that wait, about 1 KiB each; one more is left to the sweep."""
LINGER_S: Final = 0.05
"""How long the first ended call waits for others to be settled with it: a script for each would keep the store, and the
thread that decides, from their work."""
GATE_BYTES: Final = 4
"""Of what tells gates apart whose runs may have to be told again."""
PATIENCE_MS: Final = 2_000
RETRY_S: Final = 0.2
BEHIND_S: Final = 10.0
"""An ended call that waits longer, or overdue ones not swept for longer, are worth a warning."""

_log = logging.getLogger(__name__)


class Settler:
    """Takes note from any thread; settles on its own."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        *,
        make: Callable[[], AnyLink],
        cells: int,
        cell_of: Callable[[str, int], int],
        metrics: SettlementMetrics,
        name_of: Callable[[str], str],
        on_fault: Callable[[], object],
        now_ms: Callable[[], float],
        lessons: LessonBook,
        usage: Usage,
        writes_format: Callable[[], int] = lambda: 1,
        rests_with: Callable[[int], str] = str,
    ) -> None:
        """``cell_of(reservation, cells)`` is the cell that holds it; raises ValueError where its id cannot be ours.

        ``usage`` is told what calls add to usage; ``writes_format``: the format of a budget value that has to be made.
        ``rests_with``: the cell by whose rest a cell goes: one for all that are of one server.
        """
        self._make = make
        self._cells = cells
        self._cell_of = cell_of
        self._metrics = metrics
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._lessons = lessons
        self._backlog = Backlog(cells)
        gate = os.urandom(GATE_BYTES).hex()
        self._settling = CellSettling(
            [Runs(Ledger(str(cell), rests_with(cell), gate=gate), writes_format) for cell in range(cells)],
            [Runs(Ledger(str(cell), rests_with(cell), gate=f"{gate}:sweep"), writes_format) for cell in range(cells)],
            self._backlog,
            metrics=metrics,
            usage=usage,
            lessons=lessons,
            name_of=name_of,
            now_ms=now_ms,
            note_all=self.note_all,
        )
        self._troubles = CellTroubles(now_ms)
        self._sweeps = Sweeps(cells, now_ms)
        self._link: AnyLink | None = None
        self._abandoned = threading.Event()  # nobody waits for what is left
        self._thread = threading.Thread(target=self._run, name="settler", daemon=True)
        metrics.waiting.set_function(lambda: self.waiting)
        metrics.swept_s.set_function(lambda: self.swept_ago_s)

    @property
    def swept_ago_s(self) -> float:
        """Seconds since every cell was last swept."""
        return self._sweeps.ago_s

    @property
    def behind_s(self) -> float:
        """Seconds since the longest waiting call ended, or since every cell was last swept if that is longer."""
        oldest_ms = self._backlog.oldest_ms
        waited_ms = 0 if oldest_ms is None else self._now_ms() - oldest_ms
        return max(self.swept_ago_s, waited_ms / 1000)

    @property
    def waiting(self) -> int:
        """Ended calls that are not settled yet."""
        return len(self._backlog)

    def note_all(self, told: Sequence[Told]) -> None:
        """Take note of how calls ended; returns at once."""
        now_ms = self._now_ms()
        self._put([Waiting(one.reservation, one, now_ms) for one in told])

    def release(self, reservation: str) -> None:
        """Give back what a call held that was never answered; returns at once."""
        self._metrics.released.inc()
        self._put([Waiting(reservation, None, self._now_ms())])

    def give_back(self, reservation: str, until_ms: int) -> None:
        """Give back what a refused call may hold, of which the store's answer did not come; returns at once.

        ``until_ms``: by its clock the store may still admit the call until then, but not after (0: nobody knows; then
        it is asked once). One that was not found before that is asked about again.
        """
        self._put([Waiting(reservation, None, self._now_ms(), until_ms)])

    def _put(self, ended: Sequence[Waiting]) -> None:
        by_cell: dict[int, list[Waiting]] = {}
        for one in ended:
            try:
                by_cell.setdefault(self._cell_of(one.reservation, self._cells), []).append(one)
            except ValueError:  # no id of ours begins like this
                self._metrics.lost.labels("unreadable").inc()
        if lost := self._backlog.put(by_cell, most=MAX_WAITING, enough=MAX_BATCH):
            self._metrics.lost.labels("overflow").inc(lost)

    # The thread

    def start(self) -> None:
        """Begin to settle."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Settle what waits, as far as the store has it in time, and end the thread; the sweep presumes the others."""
        self._backlog.stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._abandoned.set()
        if self._link is not None:
            self._link.interrupt()
        if left := self.waiting:
            _log.warning("stopped with %d ended calls not settled: they are charged what was presumed of them", left)

    def _run(self) -> None:
        with fault_told(_log, "the settler", self._on_fault):
            self._keep_settling()

    def _keep_settling(self) -> None:
        while not self._backlog.is_stopping:
            link = self._link = self._make()
            try:
                link.connect()
                while self._step(partial(self._execute, link)):
                    pass
            except (RedisError, OSError, UnicodeError):
                self._metrics.errors.inc()
                self._backlog.pause(RETRY_S)
            finally:
                link.close()

    def _step(self, execute: Callable[..., Any]) -> bool:
        """Wait for something to do and have a turn in every cell where there is; whether to go on."""
        self._await_work()
        self._begin_sweep()
        trouble = self._go_round(execute)
        if trouble is not None:
            raise trouble
        return not self._backlog.is_stopping or (self._can_settle and not self._abandoned.is_set())

    def _await_work(self) -> None:
        due_s = self._sweeps.due_s
        if self._backlog.has_some and not self._can_settle:  # what waits is of cells that cannot be asked
            self._backlog.pause(min(RETRY_S, due_s))
        else:
            self._backlog.wait(due_s, linger_s=LINGER_S, enough=MAX_BATCH, now_ms=self._now_ms())

    @property
    def _can_settle(self) -> bool:
        return any(self._backlog.waits(cell) and self._troubles.may_be_asked(cell) for cell in range(self._cells))

    def _has_work(self, cell: int) -> bool:
        return (self._backlog.waits(cell) or self._sweeps.has(cell)) and self._troubles.may_be_asked(cell)

    def _execute(self, link: AnyLink, *command: Any) -> Any:
        return link.execute(self._now_ms() + PATIENCE_MS, *command)

    def _begin_sweep(self) -> None:
        if self._sweeps.is_due and not self._backlog.is_stopping:
            self._sweeps.begin(cell for cell in range(self._cells) if self._troubles.may_be_asked(cell))
            self._backlog.take_up_early()

    def _go_round(self, execute: Callable[..., Any]) -> RedisError | None:
        """Have a turn in every cell that has work; the error of one that cannot be asked keeps no other waiting."""
        failed: dict[int, RedisError] = {}
        asked = [cell for cell in range(self._cells) if self._has_work(cell)]
        for cell in asked:
            try:
                self._turn(execute, cell)
            except RedisError as error:
                failed[cell] = error
                self._sweeps.miss(cell)
            if self._abandoned.is_set():
                break
        self._troubles.note(asked, failed)
        if self._sweeps.end():
            self._lessons.tell(execute)
        return next(iter(failed.values()), None)

    def _turn(self, execute: Callable[..., Any], cell: int) -> None:
        """One script that settles and one that sweeps, as far as there is something to do; a rest after each."""
        if self._backlog.waits(cell):
            self._abandoned.wait(self._settling.settle(execute, cell))
        if self._sweeps.has(cell):
            has_more, rest_s = self._settling.sweep(execute, cell)
            if not has_more:
                self._sweeps.done(cell)
            self._abandoned.wait(rest_s)
