"""Settles calls that have ended, and sweeps those of which nobody ever tells.

Owns the thread ``settler`` and a link of its own to the budgets store. Nobody waits for it: what it is told waits here,
bounded, until the store has it; settling twice changes nothing, so whatever fails is tried again. Knows endings and the
ledger, nothing of keys.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from extauth.endings import Told
from extauth.lessons import LessonBook
from extauth.settlement_metrics import SettlementMetrics
from ratelimit.learning import Sample, sample_of
from ratelimit.ledger import Ledger, Outcome, Settlement
from ratelimit.tokens import Cost, Terms, charge_of
from runtime.cluster import AnyLink

MAX_WAITING: Final = 20_000
"""Most ended calls that wait, about 1 KiB each; one more is left to the sweep."""
MAX_BATCH: Final = 256
LINGER_S: Final = 0.02
"""How long the first ended call waits for others to be settled with it: a script for each would keep the store, and the
thread that decides, from their work."""
MAX_AGE_MS: Final = 1_800_000
"""An ended call waits for a store at most so long; what was presumed meanwhile then stands."""
SWEEP_S: Final = 1.0
SWEEP_BATCH: Final = 200
MAX_SWEEPS: Final = 50
"""Most scripts that one sweep of a cell takes: 10,000 overdue reservations a second."""
PATIENCE_MS: Final = 2_000
RETRY_S: Final = 0.2
BEHIND_S: Final = 10.0
"""An ended call that waits longer, or overdue ones not swept for longer, are worth a warning."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    reservation: str
    told: Told | None  # None: the call was never answered, its tokens are given back
    since_ms: float
    unheard_until_ms: int | None = None  # not heard whether it was admitted; by the store's clock it may be until then


@dataclass(frozen=True, slots=True)
class _Due:
    """A call that has ended, and what it is charged."""

    one: _Waiting
    cost: Cost | None  # None: given back
    sample: Sample | None  # what it teaches
    settlement: Settlement


class Settler:
    """Takes note from any thread; settles on its own."""

    def __init__(
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
    ) -> None:
        """``cell_of(reservation, cells)`` is the cell that holds it; raises ValueError where its id cannot be ours."""
        self._make = make
        self._cells = cells
        self._cell_of = cell_of
        self._metrics = metrics
        self._name_of = name_of
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._lessons = lessons
        self._ledgers = [Ledger(str(cell)) for cell in range(cells)]
        self._waiting: deque[_Waiting] = deque()
        self._early: list[_Waiting] = []  # unheard ones that may yet be admitted; asked about again with the next sweep
        self._changed = threading.Condition()
        self._stopping = False
        self._swept_at_ms = now_ms()
        self._link: AnyLink | None = None
        self._thread = threading.Thread(target=self._run, name="settler", daemon=True)
        metrics.waiting.set_function(lambda: self.waiting)
        metrics.swept_s.set_function(lambda: self.swept_ago_s)

    @property
    def swept_ago_s(self) -> float:
        """Seconds since every cell was last swept."""
        return (self._now_ms() - self._swept_at_ms) / 1000

    @property
    def behind_s(self) -> float:
        """Seconds since the longest waiting call ended, or since every cell was last swept if that is longer."""
        with self._changed:
            waiting = itertools.chain(self._waiting, self._early)
            oldest_ms = min((one.since_ms for one in waiting), default=self._now_ms())
        return max(self.swept_ago_s, (self._now_ms() - oldest_ms) / 1000)

    @property
    def waiting(self) -> int:
        """Ended calls that are not settled yet."""
        return len(self._waiting) + len(self._early)

    def note(self, told: Told) -> None:
        """Take note of how a call ended; returns at once."""
        self._put(_Waiting(told.reservation, told, self._now_ms()))

    def release(self, reservation: str) -> None:
        """Give back what a call held that was never answered; returns at once."""
        self._metrics.released.inc()
        self._put(_Waiting(reservation, None, self._now_ms()))

    def give_back(self, reservation: str, until_ms: int) -> None:
        """Give back what a refused call may hold, of which the store's answer did not come; returns at once.

        ``until_ms``: by its clock the store may still admit the call until then, but not after (0: nobody knows; then
        it is asked once). One that was not found before that is asked about again.
        """
        self._put(_Waiting(reservation, None, self._now_ms(), until_ms))

    def _put(self, one: _Waiting) -> None:
        with self._changed:
            if self.waiting >= MAX_WAITING:
                self._metrics.lost.labels("overflow").inc()
                return
            self._waiting.append(one)
            if len(self._waiting) in {1, MAX_BATCH}:  # what comes between need not wake anybody
                self._changed.notify()

    # The thread

    def start(self) -> None:
        """Begin to settle."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Settle what waits, if the store has it in time, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._link is not None:
            self._link.interrupt()

    def _run(self) -> None:
        try:
            self._keep_settling()
        except Exception:  # noqa: BLE001  whatever it was: the owner must learn that nobody settles any more
            _log.exception("the settler ended by a fault of its own")
            self._on_fault()

    def _keep_settling(self) -> None:
        while not self._stopping:
            link = self._link = self._make()
            try:
                link.connect()
                while self._step(link):
                    pass
            except (RedisError, OSError, UnicodeError):
                self._metrics.errors.inc()
                self._pause(RETRY_S)
            finally:
                link.close()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _step(self, link: AnyLink) -> bool:
        """Settle what waits, or sweep where it is time; whether to go on."""
        batch = self._next_batch()
        execute = partial(self._execute, link)
        try:
            if batch:
                self._settle(execute, batch)
        finally:  # a cell that cannot settle must not keep the others from being swept
            if self.swept_ago_s >= SWEEP_S:
                self._take_up_early()
                self._sweep(execute)
        return bool(self._waiting) or not self._stopping

    def _execute(self, link: AnyLink, *command: Any) -> Any:
        return link.execute(self._now_ms() + PATIENCE_MS, *command)

    def _next_batch(self) -> list[_Waiting]:
        """Wait for something to do; the batch stays in the queue until it is settled."""
        with self._changed:
            due_s = max(0.0, SWEEP_S - self.swept_ago_s)
            if self._changed.wait_for(lambda: self._waiting or self._stopping, due_s):
                self._changed.wait_for(lambda: len(self._waiting) >= MAX_BATCH or self._stopping, LINGER_S)
            return [self._waiting[place] for place in range(min(MAX_BATCH, len(self._waiting)))]

    def _take_up_early(self) -> None:
        """Let those wait again of which it was too early to know whether they are admitted."""
        with self._changed:
            self._waiting.extend(self._early)
            self._early = []

    def _settle(self, execute: Callable[..., Any], batch: Sequence[_Waiting]) -> None:
        """Settle a batch, cell by cell, and take it off the queue; what a cell refused goes to its end.

        A cell that cannot be asked keeps no other waiting; its error is raised when all were asked.
        """
        by_cell: dict[int, list[_Waiting]] = defaultdict(list)
        for one in batch:
            self._sort_in(one, by_cell)
        left: list[_Waiting] = []
        early: list[_Waiting] = []
        trouble: RedisError | None = None
        for cell, waiting in by_cell.items():
            try:
                early += self._settle_cell(execute, cell, waiting)
            except RedisError as error:
                trouble = error
                left += waiting
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._waiting.extend(left)
            self._early += early
        if trouble is not None:
            raise trouble

    def _sort_in(self, one: _Waiting, by_cell: dict[int, list[_Waiting]]) -> None:
        if self._now_ms() - one.since_ms > MAX_AGE_MS:
            self._metrics.lost.labels("too_old").inc()
            return
        try:
            by_cell[self._cell_of(one.reservation, self._cells)].append(one)
        except ValueError:  # no id of ours begins like this
            self._metrics.lost.labels("unreadable").inc()

    def _settle_cell(self, execute: Callable[..., Any], cell: int, waiting: Sequence[_Waiting]) -> list[_Waiting]:
        """Settle what the cell knows; those that it does not know yet, and that it may still admit."""
        ledger = self._ledgers[cell]
        found = ledger.terms(execute, [one.reservation for one in waiting])
        dues = [due for one, raw in zip(waiting, found, strict=True) if (due := self._due(one, raw)) is not None]
        settled = ledger.settle(execute, [due.settlement for due in dues], sweep=0)
        self._metrics.swept(settled)
        ended = list(zip(dues, settled.outcomes, strict=True))
        for due, outcome in ended:
            self._count(cell, due, outcome)
        return [due.one for due, outcome in ended if _may_yet_be(due.one, outcome, settled.now_ms)]

    def _count(self, cell: int, due: _Due, outcome: Outcome) -> None:
        if due.one.unheard_until_ms is not None and outcome in {Outcome.SETTLED, Outcome.REPLACED}:
            self._metrics.released.inc()
        told = due.one.told
        if told is None or due.cost is None:
            return
        publication = told.publication
        self._metrics.settled(self._name_of(publication), told.ended, due.cost, outcome)
        if outcome is Outcome.SETTLED and publication:
            self._lessons.note(cell, publication, due.sample)

    def _due(self, one: _Waiting, raw_terms: bytes | None) -> _Due | None:
        """What a call is charged; ``None`` where the ledger does not know it, or its terms are left to the sweep."""
        if raw_terms is None and one.unheard_until_ms is None:
            self._metrics.unknown()
            return None
        if one.told is None or raw_terms is None:  # of one that is not known yet the script says how late it is
            return _Due(one, None, None, Settlement(one.reservation, 0, is_told=False))
        try:
            terms = Terms.unpack(raw_terms)
        except ValueError:
            self._metrics.lost.labels("unreadable").inc()
            return None
        cost = charge_of(terms, one.told.ended, self._lessons.of(one.told.publication))
        return _Due(one, cost, sample_of(terms, one.told.ended, cost), Settlement(one.reservation, cost.tokens))

    def _sweep(self, execute: Callable[..., Any]) -> None:
        """Sweep every cell that can be asked; raises the error of one that cannot, when all were asked."""
        trouble: RedisError | None = None
        for ledger in self._ledgers:
            try:
                self._sweep_cell(execute, ledger)
            except RedisError as error:
                trouble = error
        if trouble is not None:
            raise trouble
        self._swept_at_ms = self._now_ms()
        self._lessons.tell(execute)

    def _sweep_cell(self, execute: Callable[..., Any], ledger: Ledger) -> None:
        for _ in range(MAX_SWEEPS):
            swept = ledger.settle(execute, (), sweep=SWEEP_BATCH)
            self._metrics.swept(swept)
            if swept.presumed + swept.forgotten < SWEEP_BATCH:
                return


def _may_yet_be(one: _Waiting, outcome: Outcome, now_ms: int) -> bool:
    """Whether a call that nobody heard of is not admitted yet, and may be later: its script is still allowed to run."""
    return one.unheard_until_ms is not None and outcome is Outcome.UNKNOWN and now_ms <= one.unheard_until_ms
