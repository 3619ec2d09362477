"""From a batch of calls to their verdicts: gather the records, decide, take, and decide again where records changed.

Knows no protobuf. All I/O goes through ``Stores`` (bounded commands) so that a batch waits for a store never longer
than its deadline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as StoreTimeoutError

from catalog.cell_number import CellsDifferError
from catalog.keys.secrets import Secrets
from catalog.records import Kind, ref
from catalog.store.reader import counter_of
from extauth.decide import Admission, Refusal, decide, needs_records, present
from extauth.denials import Denials
from extauth.events import UNHEARD, Events
from extauth.facts import Presented, facts_of, first_refs
from extauth.listing import Telling
from extauth.reasons import Reason
from extauth.records.cache import RecordCache
from extauth.records.entries import PublicationEntry, TenantEntry
from extauth.records.gathering import Gatherer, Question, Records, RecordsChangingError
from extauth.request.call import Call
from extauth.reserving import RESERVE_UNLEARNED
from extauth.stores import Budgets, Execute, Stores
from ratelimit.windows.budgets import Answer, Charge, Fence, Grant, Taken
from runtime.store.faults import surely_not_run
from runtime.store.link import NotSentError

TRIES: Final = 3
"""Decide, and decide again after catching up: every time the calls' own records are what is compared."""

LAG: Final = 8
"""So many changes of others may lie between the epoch decided on and the one in force before the cache is brought on: a
script reads each of them, and at most 32 (``ratelimit/windows/lua/take.lua``)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a batch asks of the limiter in one cell."""

    charges: Sequence[Charge]
    epoch: str  # the one in force, if the calls were decided on the records as they are


class Limiter(Protocol):
    """Takes from budgets; the gate binds ``ratelimit.windows.limiter`` to the store's clock and measures it."""

    def take(
        self, budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float
    ) -> Mapping[int, Taken | RedisError]:
        """Admit or refuse the charges of each cell in one atomic step a cell; an error is that cell's alone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What became of one call."""

    reason: Reason
    admission: Admission | None = None  # the call's records, wherever they were good enough to ask the limiter
    publication: PublicationEntry | None = None
    tenant: TenantEntry | None = None
    grant: Grant | None = None
    now_ms: int = 0  # the store's clock at the decision; 0 when the store was not asked
    telling: Telling | None = None  # what was asked of models, as ``admission``


@dataclass(slots=True)
class _Batch:
    """The state of one batch while it is worked on."""

    question: Question
    stores: Stores
    deadline_ms: float
    verdicts: list[Verdict | None]
    behind: set[int] = field(default_factory=set)  # cells far ahead of what was decided on

    def open_calls(self) -> list[int]:
        """Indexes of the calls that have no verdict yet."""
        return [index for index, verdict in enumerate(self.verdicts) if verdict is None]

    def close(self, indexes: Iterable[int], reason: Reason) -> None:
        """Give the same verdict to several calls."""
        for index in indexes:
            self.verdicts[index] = Verdict(reason)


@dataclass(slots=True)
class _Decided:
    """What the open calls come to on records of one epoch; nothing of it stands before that epoch is proved."""

    epoch: str
    by_cell: dict[int, dict[int, Admission | Telling]] = field(default_factory=lambda: defaultdict(dict))
    refusals: dict[int, Verdict] = field(default_factory=dict)
    denied: int = 0  # so many of the refusals are the deny cache's


@dataclass(slots=True)
class _Told:
    """What the cells of one try said of the records that were decided on."""

    proved: bool = False  # some cell found them to be as they are
    stale: set[int] = field(default_factory=set)  # cells that did not
    error: RedisError | None = None  # some cell could not be asked


class Checker:
    """Decides batches. Used by one thread; the cache may be advanced by others meanwhile."""

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        *,
        cache: RecordCache,
        records: Records,
        limiter: Limiter,
        secrets: Secrets,
        cells: int = 1,
        now_ms: Callable[[], int] = lambda: 0,
        wall_ms: Callable[[], int] = lambda: 0,
        on_new_history: Callable[[Execute], None] = lambda _execute: None,
        told_of: Callable[[Execute, int], tuple[str, str]] = lambda _execute, _cell: ("", ""),
        reserve: Callable[[Admission, Call], Admission] = RESERVE_UNLEARNED,
        denials: Denials | None = None,
        on: Events = UNHEARD,
    ) -> None:
        self._cache = cache
        self._gatherer = Gatherer(cache, records, on)
        self._limiter = limiter
        self._secrets = secrets
        self._cells = cells
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._told_of = told_of
        self._on_new_history = on_new_history  # raises what keeps this gate from deciding
        self._history = cache.history
        self._reserve = reserve
        self._denials = denials
        self._on = on

    def use_secrets(self, secrets: Secrets) -> None:
        """Decide with these from the next batch on; any thread may say so."""
        self._secrets = secrets

    def check(self, calls: Sequence[Call], stores: Stores, deadline_ms: float) -> list[Verdict]:
        """Answer every call, in order, before the deadline (monotonic clock)."""
        wall_ms = self._wall_ms()
        presented = [present(call, self._secrets, now_ms=wall_ms) for call in calls]
        batch = _Batch(Question(calls, presented), stores, deadline_ms, [None] * len(calls))
        self._refuse_locally(batch)
        try:
            self._work(batch)
        except RecordsChangingError:
            batch.close(batch.open_calls(), Reason.RECORDS_CHANGING)
        except RedisError as error:
            self._give_up(batch, batch.open_calls(), error)
        return [verdict or Verdict(Reason.RECORDS_CHANGING) for verdict in batch.verdicts]

    def _give_up(self, batch: _Batch, indexes: Iterable[int], error: RedisError) -> None:
        """Answer the calls for which a store could not be asked."""
        self._on.store_error(error)
        batch.close(indexes, _reason_of(error))

    def _refuse_locally(self, batch: _Batch) -> None:
        """Answer the calls that no record could admit: forged, missing and revoked keys never reach the store."""
        for index, (call, presented) in enumerate(zip(batch.question.calls, batch.question.presented, strict=True)):
            batch.verdicts[index] = self._local_refusal(call, presented)

    def _local_refusal(self, call: Call, presented: Presented) -> Verdict | None:
        absent = not isinstance(presented, Reason) and self._cache.is_absent(ref(Kind.KEY, presented.id))
        if not absent and not isinstance(presented, Reason) and (call.publication or call.openai_host):
            return None
        _, entries = self._cache.look(first_refs(call, presented))
        facts = facts_of(call, presented, entries)
        if absent:
            return Verdict(Reason.KEY_UNKNOWN, None, facts.publication)
        gone = bool(call.publication) and self._cache.is_absent(ref(Kind.PUBLICATION, call.publication))
        if needs_records(call, presented, facts.publication) and not gone:
            return None
        decision = decide(call, presented, facts, self._secrets, now_ms=0)
        return _refused(decision) if isinstance(decision, Refusal) else None

    def _work(self, batch: _Batch) -> None:
        for tried in range(1, TRIES + 1):
            if not batch.open_calls():
                return
            decided = self._decide_open(batch)
            self._heed_history(batch.stores)
            if tried < TRIES:  # after the last try no epoch is proved
                self._deny(decided)
            stale = self._settle(batch, decided, is_last=tried == TRIES)
            if stale is None:
                break
            self._on.stale(len(batch.open_calls()))
            self._catch_up(batch.stores, stale)
            batch.behind.clear()
        if batch.behind:
            self._catch_up(batch.stores, batch.behind)

    def _heed_history(self, stores: Stores) -> None:
        """A cache that begins anew may do so because something else than a record has changed for all."""
        history = self._cache.history
        if history != self._history:
            self._on_new_history(stores.records)
            self._history = history

    def _catch_up(self, stores: Stores, stale: Iterable[int]) -> None:
        """Bring the cache to the present, which then is what the epochs seen before stand for.

        Raises ``RecordsBehindError`` where the records' store lacks a change that one of these cells was told of.
        """
        if stores.proved is None:
            self._gatherer.catch_up(stores.records)
            return
        told = {cell: self._told_of(stores.budgets.execute, cell) for cell in stale}
        self._gatherer.catch_up(stores.records)
        history = self._gatherer.require([records for _, records in told.values()], stores.records)
        for cell, (epoch, _) in told.items():
            stores.proved.prove(cell, epoch, history)

    def _decide_open(self, batch: _Batch) -> _Decided:
        """Decide the open calls on records of one epoch."""
        question = batch.question
        gathered = self._gatherer.gather(question, batch.open_calls(), batch.stores.records)
        batch.close(gathered.unreadable, Reason.STATE_UNREADABLE)
        decided = _Decided(gathered.epoch)
        now_ms = self._now_ms()
        for index, facts in gathered.facts.items():
            decision = decide(
                question.calls[index], question.presented[index], facts, self._secrets, now_ms=now_ms, cells=self._cells
            )
            if isinstance(decision, Refusal):
                decided.refusals[index] = _refused(decision)
                continue
            if isinstance(decision, Admission):
                decision = self._reserve(decision, question.calls[index])
            decided.by_cell[decision.cell][index] = decision
        return decided

    def _deny(self, decided: _Decided) -> None:
        """Refuse what a full budget refused a moment ago."""
        if not self._denials:
            return
        for cell, asked in decided.by_cell.items():
            for index, admission in list(asked.items()):
                denied = self._denials.look(cell, admission.charge, decided.epoch)
                if denied is not None:
                    decided.refusals[index] = _taken_verdict(asked.pop(index), denied.grant, denied.now_ms)
                    decided.denied += 1
        decided.by_cell = {cell: asked for cell, asked in decided.by_cell.items() if asked}

    def _settle(self, batch: _Batch, decided: _Decided, *, is_last: bool) -> AbstractSet[int] | None:
        """Let stand what was decided on the records as they are; None when nothing is left to be decided again.

        Otherwise the cells that said that records have changed (none: the refusals' own store did).
        """
        told = self._take(batch, decided, is_last=is_last)
        proved = told.proved or is_last
        if not proved and told.error is not None:
            batch.close(decided.refusals, _reason_of(told.error))
        elif not proved and not told.stale and decided.refusals:
            proved = self._gatherer.in_force(batch.question, decided.epoch, batch.stores.records)
            if not proved:
                return frozenset()
        if proved:
            for index, verdict in decided.refusals.items():
                batch.verdicts[index] = verdict
            self._on.denied(decided.denied)
        return told.stale or None

    def _take(self, batch: _Batch, decided: _Decided, *, is_last: bool) -> _Told:
        """Ask every cell, and answer the calls of those that decided, but those whose own records have changed."""
        told = _Told()
        if not decided.by_cell:
            return told
        asks = {cell: self._ask(batch.stores, decided, cell) for cell in decided.by_cell}
        answers = self._limiter.take(batch.stores.budgets, asks, deadline_ms=batch.deadline_ms)
        for cell, answer in answers.items():
            admissions = decided.by_cell[cell]
            if isinstance(answer, RedisError):
                told.error = answer
                self._lose(batch, admissions, answer)
            elif answer.fence is Fence.STALE:
                told.stale.add(cell)
            elif answer.fence is Fence.LATE:
                batch.close(admissions, Reason.STORE_LATE)
            else:
                if not _close_taken(batch, admissions, answer, is_last=is_last):
                    told.stale.add(cell)
                if answer.epoch == asks[cell].epoch:
                    told.proved = True
                    self._note_denials(cell, asks[cell], answer, decided)
                elif counter_of(answer.epoch) - counter_of(asks[cell].epoch) > LAG:
                    batch.behind.add(cell)
        return told

    def _ask(self, stores: Stores, decided: _Decided, cell: int) -> Ask:
        epoch = decided.epoch if stores.proved is None else stores.proved.of(cell, self._cache.history)
        return Ask([admission.charge for admission in decided.by_cell[cell].values()], epoch)

    def _note_denials(self, cell: int, ask: Ask, taken: Taken, decided: _Decided) -> None:
        """Remember the refusals of full budgets; only of an epoch that was in force."""
        if self._denials is not None:
            self._denials.note(cell, ask.charges, taken, decided.epoch)

    def _lose(self, batch: _Batch, admissions: Mapping[int, Admission | Telling], error: RedisError) -> None:
        """Answer the calls of a cell that could not be asked, or whose answer did not come."""
        if not surely_not_run(error):
            self._on.unknown_outcome(len(admissions))
        self._give_up(batch, admissions, error)


def _reason_of(error: RedisError) -> Reason:
    if isinstance(error, CellsDifferError):
        return Reason.CROSS_CELL
    if isinstance(error, NotSentError):  # the store has answered all that it was asked
        return Reason.STORE_LATE
    return Reason.STORE_TIMEOUT if isinstance(error, StoreTimeoutError) else Reason.STORE_AWAY


def _close_taken(batch: _Batch, admissions: Mapping[int, Admission | Telling], taken: Taken, *, is_last: bool) -> bool:
    """Give their verdicts to the calls that were decided on records as they are; whether these are all."""
    complete = True
    for (index, asked), grant in zip(admissions.items(), taken.grants, strict=True):
        if grant.answer is Answer.STALE and not is_last:
            complete = False
            continue
        batch.verdicts[index] = _taken_verdict(asked, grant, taken.now_ms)
    return complete


def _taken_verdict(asked: Admission | Telling, grant: Grant, now_ms: int) -> Verdict:
    telling = asked if isinstance(asked, Telling) else None
    reason = Reason.MODELS_TOLD if telling and grant.answer is Answer.ADMITTED else REASON_OF[grant.answer]
    return Verdict(
        reason,
        asked if isinstance(asked, Admission) else None,
        asked.publication,
        asked.tenant,
        grant,
        now_ms,
        telling,
    )


REASON_OF: Final = {
    Answer.ADMITTED: Reason.OK,
    Answer.REFUSED: Reason.LIMITED,
    Answer.NEVER_FITS: Reason.NEVER_FITS,
    Answer.EXPIRED: Reason.KEY_EXPIRED,
    Answer.STALE: Reason.RECORDS_CHANGING,
    Answer.CORRUPT: Reason.STATE_UNREADABLE,
}


def _refused(refusal: Refusal) -> Verdict:
    return Verdict(refusal.reason, None, refusal.publication, refusal.tenant)
