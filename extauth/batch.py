"""From a batch of calls to their verdicts: find their lanes or decide, take, and decide again where records changed.

A call goes by the lane of its key and route where there is one, which says what ``decide`` said. One that has none is
decided, which makes its lane. Both are then asked about in the same script, and nothing of either stands before the
epoch is proved. Knows no protobuf. All I/O goes through ``Stores`` (bounded commands) so that a batch waits for a store
never longer than its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as StoreTimeoutError

from catalog.cell_number import CellsDifferError
from catalog.keys.secrets import Secrets
from catalog.store.reader import counter_of
from extauth.batches.deciding import Decider
from extauth.batches.trying import Asked, Batch, Decided
from extauth.decide import Refusal
from extauth.denials import Denials, Denied
from extauth.events import UNHEARD, Events
from extauth.lanes.table import LaneTable
from extauth.listing import listed, listed_refs
from extauth.reasons import Reason
from extauth.records.allowances import ALLOWED, Allowances
from extauth.records.cache import RecordCache
from extauth.records.gathering import Gatherer, Records, RecordsChangingError
from extauth.request.call import Asking
from extauth.reserving import RESERVE_UNLEARNED, Reserver
from extauth.stores import Budgets, Execute, Stores
from extauth.verdict import Verdict, granted, refused
from ratelimit.windows.budgets import Answer, Draw, Fence, Taken
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

    draws: Sequence[Draw]
    epoch: str  # the one in force, if the calls were decided on the records as they are


class Limiter(Protocol):
    """Takes from budgets; the gate binds ``ratelimit.windows.limiter`` to the store's clock and measures it."""

    def take(
        self, budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float
    ) -> Mapping[int, Taken | RedisError]:
        """Admit or refuse the draws of each cell in one atomic step a cell; an error is that cell's alone."""
        ...


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
        reserve: Reserver = RESERVE_UNLEARNED,
        denials: Denials | None = None,
        lanes: LaneTable | None = None,
        allowances: Allowances = ALLOWED,
        on: Events = UNHEARD,
    ) -> None:
        self._cache = cache
        self._gatherer = Gatherer(cache, records, on)
        self.lanes = LaneTable(cache) if lanes is None else lanes  # an empty one is false
        """What was decided and still stands."""
        self._decider = Decider(
            cache,
            self._gatherer,
            self.lanes,
            reserve,
            secrets,
            cells=cells,
            now_ms=now_ms,
            wall_ms=wall_ms,
            allowances=allowances,
            on=on,
        )
        self._limiter = limiter
        self._told_of = told_of
        self._on_new_history = on_new_history  # raises what keeps this gate from deciding
        self._history = cache.history
        self._denials = denials
        self._on = on

    def use_secrets(self, secrets: Secrets) -> None:
        """Decide with these from the next batch on; any thread may say so."""
        self._decider.use_secrets(secrets)

    def check(self, calls: Sequence[Asking], stores: Stores, deadline_ms: float) -> list[Verdict]:
        """Answer every call, in order, before the deadline (monotonic clock)."""
        batch = self._decider.begin(calls, stores, deadline_ms)
        self._try(batch, self._work, batch.open_calls)
        if batch.asks_lists:
            self._try(batch, self._list_models, batch.lists)
        return [verdict or Verdict(Reason.RECORDS_CHANGING) for verdict in batch.verdicts]

    def _try(self, batch: Batch, step: Callable[[Batch], None], of: Callable[[], Iterable[int]]) -> None:
        """Take a step; where it fails, its calls are answered so."""
        try:
            step(batch)
        except RecordsChangingError:
            batch.close(of(), Reason.RECORDS_CHANGING)
        except RedisError as error:
            self._give_up(batch, of(), error)

    def _list_models(self, batch: Batch) -> None:
        """Read what admitted questions about a host's models are answered with: nothing was read for them before.

        The taking script compared no epoch for these records, so the cache is brought to the present first.
        """
        asked = {index: told for index, told in batch.told() if told.host}
        self._catch_up(batch.stores, {told.cell for told in asked.values()})
        names = {name for told in asked.values() for name in listed_refs(told)}
        entries = self._gatherer.listed(batch.question, names, batch.stores.records)
        for index, told in asked.items():
            batch.answer_list(index, listed(told, entries))

    def _give_up(self, batch: Batch, indexes: Iterable[int], error: RedisError) -> None:
        """Answer the calls for which a store could not be asked."""
        self._on.store_error(error)
        batch.close(indexes, _reason_of(error))

    def _work(self, batch: Batch) -> None:
        for tried in range(1, TRIES + 1):
            decided = self._decider.decide(batch)
            if decided is None:
                return
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

    def _deny(self, decided: Decided) -> None:
        """Refuse what a full budget refused a moment ago."""
        if not self._denials:
            return
        for cell, asked in list(decided.by_cell.items()):
            left = []
            for one in asked:
                denied = self._denials.look(cell, one.draw, decided.epoch)
                if denied is None:
                    left.append(one)
                    continue
                decided.refusals[one.at] = _told_as(denied, one)
                decided.denied += 1
            if left:
                decided.by_cell[cell] = left
            else:
                del decided.by_cell[cell]

    def _settle(self, batch: Batch, decided: Decided, *, is_last: bool) -> AbstractSet[int] | None:
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
        if proved and decided.refusals:
            for index, verdict in decided.refusals.items():
                batch.verdicts[index] = verdict
            self._on.denied(decided.denied)
        return told.stale or None

    def _take(self, batch: Batch, decided: Decided, *, is_last: bool) -> _Told:
        """Ask every cell, and answer the calls of those that decided, but those whose own records have changed."""
        told = _Told()
        if not decided.by_cell:
            return told
        asks = {cell: self._ask(batch.stores, decided, cell) for cell in decided.by_cell}
        answers = self._limiter.take(batch.stores.budgets, asks, deadline_ms=batch.deadline_ms)
        for cell, answer in answers.items():
            asked = decided.by_cell[cell]
            if isinstance(answer, RedisError):
                told.error = answer
                self._lose(batch, asked, answer)
            elif answer.fence is Fence.STALE:
                told.stale.add(cell)
                if is_last:  # no epoch is proved any more, and what is refused stays so
                    _stand(batch, asked)
            elif answer.fence is Fence.LATE:
                batch.close([one.at for one in asked], Reason.STORE_LATE)
            else:
                if not _close_taken(batch, asked, answer, is_last=is_last):
                    told.stale.add(cell)
                if answer.epoch == asks[cell].epoch:
                    told.proved = True
                    self._note_denials(cell, asks[cell], answer, decided)
                elif counter_of(answer.epoch) - counter_of(asks[cell].epoch) > LAG:
                    batch.behind.add(cell)
        return told

    def _ask(self, stores: Stores, decided: Decided, cell: int) -> Ask:
        epoch = decided.epoch if stores.proved is None else stores.proved.of(cell, self._cache.history)
        return Ask([one.draw for one in decided.by_cell[cell]], epoch)

    def _note_denials(self, cell: int, ask: Ask, taken: Taken, decided: Decided) -> None:
        """Remember the refusals of full budgets; only of an epoch that was in force."""
        if self._denials is not None:
            self._denials.note(cell, ask.draws, taken, decided.epoch)

    def _lose(self, batch: Batch, asked: Sequence[Asked], error: RedisError) -> None:
        """Answer the calls of a cell that could not be asked, or whose answer did not come."""
        if not surely_not_run(error):
            self._on.unknown_outcome(len(asked))
        self._give_up(batch, [one.at for one in asked], error)


def _stand(batch: Batch, asked: Sequence[Asked]) -> None:
    """Let refusals stand that nobody counted."""
    for one in asked:
        if isinstance(one.of, Refusal):
            batch.verdicts[one.at] = refused(one.of)


def _told_as(denied: Denied, asked: Asked) -> Verdict:
    """What a remembered refusal comes to; made once for all whose budgets, publication, tenant and API are the same."""
    of = asked.of.publication, asked.of.tenant, asked.of.is_anthropic
    verdict = denied.told.get(of)
    if not isinstance(verdict, Verdict):
        verdict = denied.told[of] = granted(asked.of, denied.grant, denied.now_ms)
    return verdict


def _reason_of(error: RedisError) -> Reason:
    if isinstance(error, CellsDifferError):
        return Reason.CROSS_CELL
    if isinstance(error, NotSentError):  # the store has answered all that it was asked
        return Reason.STORE_LATE
    return Reason.STORE_TIMEOUT if isinstance(error, StoreTimeoutError) else Reason.STORE_AWAY


def _close_taken(batch: Batch, asked: Sequence[Asked], taken: Taken, *, is_last: bool) -> bool:
    """Give their verdicts to the calls that were decided on records as they are; whether these are all."""
    verdicts, now_ms, complete = batch.verdicts, taken.now_ms, True
    for one, grant in zip(asked, taken.grants, strict=True):
        if grant.answer is Answer.STALE and not is_last:
            complete = False
            continue
        verdicts[one.at] = granted(one.of, grant, now_ms)
    return complete
