"""Settles calls that have ended, and sweeps those of which nobody ever tells.

Owns the thread ``settler`` and a link of its own to the budgets store. Nobody waits for it: what it is told waits
here, bounded, until the store has it; settling twice changes nothing, so whatever fails is tried again. It goes from
cell to cell, a script at a time: each keeps the store no longer than one that takes, and then all settling rests for
as long as it took (``ratelimit.tokens.ledger``), so a backlog never shuts out calls. Knows endings and the ledger,
nothing of keys.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from ratelimit.tokens.backlog import Backlog, Waiting
from ratelimit.tokens.cell_troubles import CellTroubles
from ratelimit.tokens.costs import Cost, Terms, charge_of
from ratelimit.tokens.endings import Told
from ratelimit.tokens.learning import Sample, sample_of
from ratelimit.tokens.ledger import Ledger, Outcome, Settled, Settlement
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.metrics import SettlementMetrics
from ratelimit.windows.sizing import SCRIPT_BUDGET_US, BatchSizer
from runtime.store.cluster import AnyLink

MAX_WAITING: Final = 20_000
"""Most ended calls that wait, about 1 KiB each; one more is left to the sweep."""
MAX_BATCH: Final = 256
"""Most ended calls of one script, and enough of them to wait for no more."""
FIRST_BATCH: Final = 8
"""So many endings, or overdue ones, are tried before anything is known of what they cost the store."""
LINGER_S: Final = 0.02
"""How long the first ended call waits for others to be settled with it: a script for each would keep the store, and the
thread that decides, from their work."""
MAX_AGE_MS: Final = 1_800_000
"""An ended call waits for a store at most so long; what was presumed meanwhile then stands."""
SWEEP_S: Final = 1.0
MAX_REST_MS: Final = 20
MAX_REFUSED: Final = 8
"""Most rests that are waited for at once where other gates settle too."""
PATIENCE_MS: Final = 2_000
RETRY_S: Final = 0.2
BEHIND_S: Final = 10.0
"""An ended call that waits longer, or overdue ones not swept for longer, are worth a warning."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Due:
    """A call that has ended, and what it is charged."""

    one: Waiting
    cost: Cost | None  # None: given back
    sample: Sample | None  # what it teaches
    settlement: Settlement


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
        rests_with: Callable[[int], str] = str,
    ) -> None:
        """``cell_of(reservation, cells)`` is the cell that holds it; raises ValueError where its id cannot be ours.

        ``rests_with``: the cell by whose rest a cell goes: one for all that are of one server.
        """
        self._make = make
        self._cells = cells
        self._cell_of = cell_of
        self._metrics = metrics
        self._name_of = name_of
        self._on_fault = on_fault
        self._now_ms = now_ms
        self._lessons = lessons
        self._ledgers = [Ledger(str(cell), rests_with(cell)) for cell in range(cells)]
        self._backlog = Backlog(cells)
        self._sizer = BatchSizer(first=FIRST_BATCH, largest=MAX_BATCH)
        self._sweep_sizer = BatchSizer(first=FIRST_BATCH, largest=MAX_BATCH)
        self._troubles = CellTroubles(now_ms)
        self._swept_at_ms = now_ms()
        self._sweep_from_ms = now_ms() + SWEEP_S * 1000
        self._to_sweep: set[int] = set()  # cells that the sweep which is on has not done with
        self._missed: set[int] | None = None  # cells that it cannot ask; None: no sweep is on
        self._refused = 0  # times in a row that settling rested when it was asked
        self._link: AnyLink | None = None
        self._abandoned = threading.Event()  # nobody waits for what is left
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
        oldest_ms = self._backlog.oldest_ms
        waited_ms = 0 if oldest_ms is None else self._now_ms() - oldest_ms
        return max(self.swept_ago_s, waited_ms / 1000)

    @property
    def waiting(self) -> int:
        """Ended calls that are not settled yet."""
        return len(self._backlog)

    def note(self, told: Told) -> None:
        """Take note of how a call ended; returns at once."""
        self._put(Waiting(told.reservation, told, self._now_ms()))

    def release(self, reservation: str) -> None:
        """Give back what a call held that was never answered; returns at once."""
        self._metrics.released.inc()
        self._put(Waiting(reservation, None, self._now_ms()))

    def give_back(self, reservation: str, until_ms: int) -> None:
        """Give back what a refused call may hold, of which the store's answer did not come; returns at once.

        ``until_ms``: by its clock the store may still admit the call until then, but not after (0: nobody knows; then
        it is asked once). One that was not found before that is asked about again.
        """
        self._put(Waiting(reservation, None, self._now_ms(), until_ms))

    def _put(self, one: Waiting) -> None:
        try:
            cell = self._cell_of(one.reservation, self._cells)
        except ValueError:  # no id of ours begins like this
            self._metrics.lost.labels("unreadable").inc()
            return
        if not self._backlog.put(cell, one, most=MAX_WAITING, enough=MAX_BATCH):
            self._metrics.lost.labels("overflow").inc()

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
        try:
            self._keep_settling()
        except Exception:  # noqa: BLE001  whatever it was: the owner must learn that nobody settles any more
            _log.exception("the settler ended by a fault of its own")
            self._on_fault()

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
        now_ms = self._now_ms()
        due_s = 0.0 if self._to_sweep else max(0.0, self._sweep_from_ms - now_ms) / 1000
        if self._backlog.has_some and not self._can_settle:  # what waits is of cells that cannot be asked
            self._backlog.pause(min(RETRY_S, due_s))
        else:
            self._backlog.wait(due_s, linger_s=LINGER_S, enough=MAX_BATCH, now_ms=now_ms)

    @property
    def _can_settle(self) -> bool:
        return any(self._backlog.waits(cell) and self._troubles.may_be_asked(cell) for cell in range(self._cells))

    def _has_work(self, cell: int) -> bool:
        return (self._backlog.waits(cell) or cell in self._to_sweep) and self._troubles.may_be_asked(cell)

    def _execute(self, link: AnyLink, *command: Any) -> Any:
        return link.execute(self._now_ms() + PATIENCE_MS, *command)

    def _go_round(self, execute: Callable[..., Any]) -> RedisError | None:
        """Have a turn in every cell that has work; the error of one that cannot be asked keeps no other waiting."""
        failed: dict[int, RedisError] = {}
        asked = [cell for cell in range(self._cells) if self._has_work(cell)]
        for cell in asked:
            try:
                self._turn(execute, cell)
            except RedisError as error:
                failed[cell] = error
                self._miss(cell)
            if self._abandoned.is_set():
                break
        self._troubles.note(asked, failed)
        self._end_sweep(execute)
        return next(iter(failed.values()), None)

    def _turn(self, execute: Callable[..., Any], cell: int) -> None:
        """One script that settles and one that sweeps, as far as there is something to do; a rest after each."""
        if batch := self._backlog.first(cell, self._sizer.calls):
            try:
                self._settle(execute, cell, batch)
            except RedisError:  # it may be one of these that the cell cannot settle
                self._backlog.postpone(cell, len(batch))
                raise
        if cell in self._to_sweep:
            self._sweep(execute, cell)

    def _settle(self, execute: Callable[..., Any], cell: int, batch: Sequence[Waiting]) -> None:
        """Settle what the cell knows, as far as time allows; those that it does not know yet may be asked for again."""
        fresh = [one for one in batch if not self._is_too_old(one)]
        self._backlog.done(cell, len(batch), left=fresh)
        ledger = self._ledgers[cell]
        found = ledger.terms(execute, [one.reservation for one in fresh])
        dues = [due for one, raw in zip(fresh, found, strict=True) if (due := self._due(one, raw)) is not None]
        self._backlog.done(cell, len(fresh), left=[due.one for due in dues])
        if not dues:
            return
        sent_ms = self._now_ms()
        settled = ledger.settle(execute, [due.settlement for due in dues], sweep=0, most_us=SCRIPT_BUDGET_US)
        took_ms = self._now_ms() - sent_ms
        ended = list(zip(dues, settled.outcomes, strict=False))
        early = [due.one for due, outcome in ended if _may_yet_be(due.one, outcome, settled.now_ms)]
        self._backlog.done(cell, len(ended), early=early)
        for due, outcome in ended:
            self._count(cell, due, outcome)
        self._rest(self._sizer, "settle", len(ended), settled, took_ms)

    def _rest(self, sizer: BatchSizer, work: str, calls: int, settled: Settled, took_ms: float) -> None:
        """Take in what a script took of the store, and let others have it for as long as it says.

        For as long as the answer took, if that is more (at most ``MAX_REST_MS``): the store is busy, or its machine is.
        Where another gate's script was in the way, wait longer each time: they must not all ask at every moment.
        """
        if calls:
            sizer.learn(calls, settled.spent_us)
        self._metrics.ran(work, settled)
        self._refused = self._refused + 1 if settled.is_resting else 0
        rest_ms = max(settled.rest_us / 1_000, min(took_ms, MAX_REST_MS))
        self._abandoned.wait(min(MAX_REFUSED, 1 + self._refused) * rest_ms / 1_000)

    def _is_too_old(self, one: Waiting) -> bool:
        is_old = self._now_ms() - one.since_ms > MAX_AGE_MS
        if is_old:
            self._metrics.lost.labels("too_old").inc()
        return is_old

    def _count(self, cell: int, due: _Due, outcome: Outcome) -> None:
        if due.one.unheard_until_ms is not None and outcome in {Outcome.SETTLED, Outcome.REPLACED}:
            self._metrics.released.inc()
        told = due.one.told
        if told is None or due.cost is None:
            return
        publication = told.publication
        self._metrics.settled(self._name_of(publication), told.ended, due.cost, outcome)
        if outcome is Outcome.SETTLED and publication:
            self._lessons.note(cell, publication, told.caller, due.sample)

    def _due(self, one: Waiting, raw_terms: bytes | None) -> _Due | None:
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

    def _begin_sweep(self) -> None:
        if not self._to_sweep and not self._backlog.is_stopping and self._now_ms() >= self._sweep_from_ms:
            self._sweep_from_ms = self._now_ms() + SWEEP_S * 1000
            self._to_sweep = {cell for cell in range(self._cells) if self._troubles.may_be_asked(cell)}
            self._missed = set(range(self._cells)) - self._to_sweep
            self._backlog.take_up_early()

    def _sweep(self, execute: Callable[..., Any], cell: int) -> None:
        """Presume some of a cell's overdue ones."""
        sent_ms = self._now_ms()
        settled = self._ledgers[cell].settle(execute, (), sweep=self._sweep_sizer.calls, most_us=SCRIPT_BUDGET_US)
        took_ms = self._now_ms() - sent_ms
        if not settled.has_more:
            self._to_sweep.discard(cell)
        self._rest(self._sweep_sizer, "sweep", settled.presumed + settled.forgotten, settled, took_ms)

    def _end_sweep(self, execute: Callable[..., Any]) -> None:
        """Note that nothing is overdue any more, if that is known of every cell."""
        if self._to_sweep or self._missed is None:
            return
        if not self._missed:
            self._swept_at_ms = self._now_ms()
        self._missed = None
        self._lessons.tell(execute)

    def _miss(self, cell: int) -> None:
        if cell in self._to_sweep and self._missed is not None:
            self._to_sweep.discard(cell)
            self._missed.add(cell)


def _may_yet_be(one: Waiting, outcome: Outcome, now_ms: int) -> bool:
    """Whether a call that nobody heard of is not admitted yet, and may be later: its script is still allowed to run."""
    return one.unheard_until_ms is not None and outcome is Outcome.UNKNOWN and now_ms <= one.unheard_until_ms
