"""Settles and sweeps one cell at a time: works out what ended calls are charged, has the store settle them, counts.

Knows endings and the ledger; threads, links and turns are the settler's business. Raises what ``execute`` raises; all
of it may be repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import RedisError

from ratelimit.tokens.costs import Cost, Ended
from ratelimit.tokens.endings import Told
from ratelimit.tokens.learning import sample_of
from ratelimit.tokens.ledger import DONE, Outcome, Settled, Settlement
from ratelimit.tokens.lessons import LessonBook
from ratelimit.tokens.settling.backlog import Backlog, Waiting
from ratelimit.tokens.settling.dues import Due, Left, due_of
from ratelimit.tokens.settling.metrics import SettlementMetrics
from ratelimit.tokens.settling.pace import Pace
from ratelimit.tokens.settling.results import Results
from ratelimit.tokens.settling.runs import Runs
from ratelimit.tokens.settling.usage import Usage, note_usage
from ratelimit.tokens.terms import Terms
from ratelimit.windows.limiter import Execute

MAX_AGE_MS: Final = 1_800_000
"""An ended call waits for a store at most so long; what was presumed meanwhile then stands."""


class CellSettling:
    """What is done in a cell when it has its turn. For one thread."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        settling: Sequence[Runs],
        sweeping: Sequence[Runs],
        backlog: Backlog,
        *,
        metrics: SettlementMetrics,
        usage: Usage,
        lessons: LessonBook,
        name_of: Callable[[str], str],
        now_ms: Callable[[], float],
        note_all: Callable[[Sequence[Told]], None],
    ) -> None:
        """``settling``, ``sweeping``: by cell. ``note_all`` takes endings of calls that were held until now."""
        self._settling = settling
        self._sweeping = sweeping
        self._results = [Results(str(cell), runs.ledger) for cell, runs in enumerate(settling)]
        self._backlog = backlog
        self._metrics = metrics
        self._usage = usage
        self._lessons = lessons
        self._name_of = name_of
        self._now_ms = now_ms
        self._note_all = note_all
        self._pace = Pace()

    def settle(self, execute: Execute, cell: int) -> float:
        """Settle what waits and the cell knows, as far as a script's time allows; how long to rest, in seconds.

        Those that it does not know yet may be asked for again.
        """
        runs = self._settling[cell]
        try:
            dues = self._taken(execute, cell) if runs.unheard is None else runs.unheard
            if not dues:
                return 0.0
            sent_ms = self._now_ms()
            script = runs.ask(execute, dues)
        except RedisError:
            if runs.unheard is None:  # it may be one of these that the cell cannot settle
                self._backlog.postpone(cell)
            raise
        took_ms = self._now_ms() - sent_ms
        ended = list(zip(dues, script.outcomes, strict=False))
        early = [due.one for due, outcome in ended if _may_yet_be(due.one, outcome, script.now_ms)]
        self._count(cell, ended)
        self._noted("settle", [due.settlement for due in dues], script)
        self._backlog.done(cell, len(ended), early=early)
        self._results[cell].settled(execute, [told for due, _ in ended if (told := due.one.told) and told.is_result])
        return self._pace.settled(len(ended), script, took_ms)

    def sweep(self, execute: Execute, cell: int) -> tuple[bool, float]:
        """Presume some of the overdue ones: whether there may be more, and how long to rest, in seconds."""
        sent_ms = self._now_ms()
        script = self._sweeping[cell].ask(execute, sweep=self._pace.overdue)
        took_ms = self._now_ms() - sent_ms
        self._noted("sweep", (), script)
        return script.has_more, self._pace.swept(script, took_ms)

    def _noted(self, work: str, settlements: Sequence[Settlement], script: Settled) -> None:
        self._metrics.ran(work, script)
        note_usage(self._usage, settlements, script)

    # What a batch comes to

    def _taken(self, execute: Execute, cell: int) -> list[Due]:
        """Take some in hand that wait, and work out what they are charged; the others are done."""
        batch = self._backlog.take(cell, self._pace.endings)
        dues = self._without_awaited(execute, cell, self._dues(execute, cell, self._fresh(batch)))
        if len(dues) < len(batch):
            self._backlog.keep(cell, [due.one for due in dues])
        return dues

    def _fresh(self, batch: list[Waiting]) -> list[Waiting]:
        """Leave out those that have waited too long."""
        oldest_ms = self._now_ms() - MAX_AGE_MS
        fresh = [one for one in batch if one.since_ms >= oldest_ms]
        if len(fresh) < len(batch):
            self._metrics.lost.labels("too_old").inc(len(batch) - len(fresh))
        return fresh

    def _dues(self, execute: Execute, cell: int, fresh: list[Waiting]) -> list[Due]:
        """Work out what each is charged; leave out those of which nothing is known."""
        found = self._settling[cell].ledger.terms(execute, [one.reservation for one in fresh])
        dues: list[Due] = []
        for one, raw_terms in zip(fresh, found, strict=True):
            due = due_of(one, raw_terms)
            if due is Left.UNKNOWN:
                self._metrics.unknown()
            elif due is Left.UNREADABLE:
                self._metrics.unreadable()
            else:
                dues.append(due)
        return dues

    def _without_awaited(self, execute: Execute, cell: int, dues: list[Due]) -> list[Due]:
        """Leave those held whose work goes on; those whose results have come now wait like all that have ended."""
        endings = [(due.one.told, due.terms) for due in dues if due.one.told and due.one.told.answers_id and due.terms]
        if not endings:
            return dues
        heard = self._results[cell].hear(execute, endings)
        self._note_all(heard.told)
        self._metrics.awaited.inc(len(heard.awaited))
        return [due for due in dues if due.one.reservation not in heard.awaited]

    def _count(self, cell: int, ended: Sequence[tuple[Due, Outcome]]) -> None:
        by_publication: defaultdict[str, list[tuple[Ended, Cost, Outcome]]] = defaultdict(list)
        for due, outcome in ended:
            told = due.one.told
            if due.one.unheard_until_ms is not None and outcome in DONE:
                self._metrics.released.inc()
            if told is None or due.cost is None:
                continue
            by_publication[told.publication].append((told.ended, due.cost, outcome))
            if outcome is Outcome.SETTLED and told.publication:
                self._teach(cell, told, due)
        for publication, endings in by_publication.items():
            self._metrics.settled(self._name_of(publication), endings)

    def _teach(self, cell: int, told: Told, due: Due) -> None:
        """Note what a call teaches, where more is to be learnt of it."""
        is_asked = self._lessons.wants(cell, told.publication, told.caller)
        if is_asked and due.cost and not told.is_result:
            terms = due.terms or Terms.unpack(due.raw_terms)
            self._lessons.note(cell, told.publication, told.caller, sample_of(terms, told.ended, due.cost))


def _may_yet_be(one: Waiting, outcome: Outcome, now_ms: int) -> bool:
    """Whether a call that nobody heard of is not admitted yet, and may be later: its script is still allowed to run."""
    return one.unheard_until_ms is not None and outcome is Outcome.UNKNOWN and now_ms <= one.unheard_until_ms
