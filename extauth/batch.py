"""From a batch of calls to their verdicts: gather the records, decide, take, and decide again where the epoch moved.

Knows no protobuf. All I/O goes through ``Execute`` (one bounded command to the store) so that a batch waits for the
store never longer than its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as StoreTimeoutError

from catalog.keytext import ParsedKey
from catalog.reader import Delta, Snapshot
from catalog.records import Kind, ref
from catalog.secrets import Secrets
from extauth.cache import RecordCache
from extauth.call import Call
from extauth.decide import Admission, Facts, Refusal, decide, needs_records, present, resolve_model
from extauth.entries import Entry, HostEntry, KeyEntry, PublicationEntry, TenantEntry, entry_of
from extauth.reasons import Reason
from ratelimit.budgets import Answer, Charge, Fence, Grant, Taken
from runtime.link import NotConnectedError, NotSentError

Execute = Callable[..., Any]
"""Send one command to the store and return its reply, within the batch's deadline."""

TRIES: Final = 3
"""Decide, decide again after catching up, and at last have only the call's own records compared."""
GATHER_ROUNDS: Final = 8
"""Rounds of reading before giving up on records that change faster than they can be read."""


class Records(Protocol):
    """Reads records and what changed; ``catalog.reader`` is the real one."""

    def read(self, execute: Execute, refs: Sequence[str]) -> Snapshot:
        """Read records together with the epoch."""
        ...

    def catch_up(self, execute: Execute, epoch: str) -> Delta | None:
        """Tell what changed since ``epoch``; ``None`` when nobody can tell."""
        ...


class Limiter(Protocol):
    """Takes from budgets; the gate binds ``ratelimit.limiter`` to the store's clock and measures it."""

    def take(
        self, execute: Execute, charges: Sequence[Charge], *, epoch: str, deadline_ms: float, by_records: bool
    ) -> Taken:
        """Admit or refuse every charge in one atomic step."""
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


@dataclass(slots=True)
class _Batch:
    """The state of one batch while it is worked on."""

    calls: Sequence[Call]
    presented: list[ParsedKey | Reason]
    deadline_ms: float
    verdicts: list[Verdict | None]
    absent: set[str] = field(default_factory=set)  # names without a record, as of `absent_epoch`
    corrupt: set[str] = field(default_factory=set)  # names whose record cannot be read, likewise
    absent_epoch: str = ""

    def open_calls(self) -> list[int]:
        """Indexes of the calls that have no verdict yet."""
        return [index for index, verdict in enumerate(self.verdicts) if verdict is None]

    def close(self, indexes: Iterable[int], reason: Reason) -> None:
        """Give the same verdict to several calls."""
        for index in indexes:
            self.verdicts[index] = Verdict(reason)


class RecordsChangingError(Exception):
    """The records change faster than they can be read consistently."""


class Checker:
    """Decides batches. Used by one thread; the cache may be advanced by others meanwhile."""

    def __init__(
        self,
        *,
        cache: RecordCache,
        records: Records,
        limiter: Limiter,
        secrets: Secrets,
        on_stale: Callable[[], None] = lambda: None,
        on_unknown_outcome: Callable[[int], None] = lambda _count: None,
        on_store_error: Callable[[RedisError], None] = lambda _error: None,
    ) -> None:
        self._cache = cache
        self._records = records
        self._limiter = limiter
        self._secrets = secrets
        self._on_stale = on_stale
        self._on_unknown_outcome = on_unknown_outcome
        self._on_store_error = on_store_error

    def check(self, calls: Sequence[Call], execute: Execute, deadline_ms: float) -> list[Verdict]:
        """Answer every call, in order, before the deadline (monotonic clock)."""
        presented = [present(call, self._secrets) for call in calls]
        batch = _Batch(calls, presented, deadline_ms, [None] * len(calls))
        self._refuse_locally(batch)
        try:
            self._work(batch, execute)
        except RecordsChangingError:
            batch.close(batch.open_calls(), Reason.RECORDS_CHANGING)
        except RedisError as error:
            self._on_store_error(error)
            reason = Reason.STORE_TIMEOUT if isinstance(error, StoreTimeoutError) else Reason.STORE_AWAY
            batch.close(batch.open_calls(), reason)
        return [verdict or Verdict(Reason.RECORDS_CHANGING) for verdict in batch.verdicts]

    def _refuse_locally(self, batch: _Batch) -> None:
        """Answer the calls that no record could admit: forged and missing keys never reach the store."""
        for index, (call, presented) in enumerate(zip(batch.calls, batch.presented, strict=True)):
            if not needs_records(call, presented):
                _, entries = self._cache.look(_first_refs(call, presented))  # for the metrics' labels only
                decision = decide(call, presented, _facts(batch, index, entries), self._secrets)
                batch.verdicts[index] = _refused(decision) if isinstance(decision, Refusal) else None

    def _work(self, batch: _Batch, execute: Execute) -> None:
        for tried in range(1, TRIES + 1):
            if not batch.open_calls():
                return
            epoch, admissions = self._decide_open(batch, execute)
            if not admissions:
                return
            taken = self._take(batch, execute, epoch, admissions, by_records=tried == TRIES)
            if taken.fence is Fence.PASSED:
                self._close_taken(batch, admissions, taken)
                return
            if taken.fence is Fence.LATE:
                batch.close(admissions, Reason.STORE_TIMEOUT)
                return
            self._on_stale()
            self._catch_up(execute, taken.epoch)

    def _decide_open(self, batch: _Batch, execute: Execute) -> tuple[str, dict[int, Admission]]:
        """Decide the open calls on records of one epoch; refusals are final, admissions still have to fit."""
        epoch, facts = self._gather(batch, execute)
        admissions: dict[int, Admission] = {}
        for index, fact in facts.items():
            decision = decide(batch.calls[index], batch.presented[index], fact, self._secrets)
            if isinstance(decision, Admission):
                admissions[index] = decision
            else:
                batch.verdicts[index] = _refused(decision)
        return epoch, admissions

    def _take(
        self, batch: _Batch, execute: Execute, epoch: str, admissions: dict[int, Admission], *, by_records: bool
    ) -> Taken:
        charges = [admission.charge for admission in admissions.values()]
        try:
            return self._limiter.take(
                execute, charges, epoch=epoch, deadline_ms=batch.deadline_ms, by_records=by_records
            )
        except (NotConnectedError, NotSentError):
            raise
        except RedisError:
            self._on_unknown_outcome(len(charges))
            raise

    @staticmethod
    def _close_taken(batch: _Batch, admissions: dict[int, Admission], taken: Taken) -> None:
        for (index, admission), grant in zip(admissions.items(), taken.grants, strict=True):
            batch.verdicts[index] = Verdict(
                REASON_OF[grant.answer], admission, admission.publication, admission.tenant, grant, taken.now_ms
            )

    # Gathering: every fact of a batch is from one epoch.

    def _gather(self, batch: _Batch, execute: Execute) -> tuple[str, dict[int, Facts]]:
        indexes = batch.open_calls()
        first = {ref_ for index in indexes for ref_ in _first_refs(batch.calls[index], batch.presented[index])}
        for _ in range(GATHER_ROUNDS):
            epoch, entries = self._cache.look(first)
            missing = _missing(batch, epoch, first, entries)
            if not missing:
                second = {r for index in indexes for r in _second_refs(batch, index, entries)}
                epoch_then, more = self._cache.look(second)
                if epoch_then != epoch:
                    continue
                entries |= more
                missing = _missing(batch, epoch, second, entries)
            if not missing:
                return epoch, {
                    index: _facts(batch, index, entries) for index in self._readable(batch, indexes, entries)
                }
            self._fetch(batch, execute, missing)
        raise RecordsChangingError

    @staticmethod
    def _readable(batch: _Batch, indexes: list[int], entries: dict[str, Entry]) -> list[int]:
        """Leave out, and answer, the calls that need a record nobody can read."""
        if not batch.corrupt:
            return indexes
        lost = [i for i in indexes if not batch.corrupt.isdisjoint(_all_refs(batch, i, entries))]
        batch.close(lost, Reason.STATE_UNREADABLE)
        return [index for index in indexes if batch.verdicts[index] is None]

    def _fetch(self, batch: _Batch, execute: Execute, missing: list[str]) -> None:
        """Read what is missing; a record enters the cache only if it was read at the cache's own epoch."""
        snapshot = self._records.read(execute, missing)
        entries = {r: e for r, record in snapshot.records.items() if record and (e := entry_of(record)) is not None}
        if not self._cache.insert(snapshot.epoch, entries):
            self._catch_up(execute, snapshot.epoch)
            return
        if batch.absent_epoch != snapshot.epoch:
            batch.absent, batch.corrupt, batch.absent_epoch = set(), set(), snapshot.epoch
        batch.corrupt |= snapshot.corrupt
        batch.absent |= {r for r in missing if r not in entries}

    def _catch_up(self, execute: Execute, epoch: str) -> None:
        """Bring the cache to the present by the feed, or empty it when the feed cannot tell what changed."""
        seen = self._cache.epoch
        delta = self._records.catch_up(execute, seen)
        if delta is None:
            self._cache.reset(epoch)
        else:
            self._cache.advance(seen, delta.epoch, delta.refs)


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


def _first_refs(call: Call, presented: ParsedKey | Reason) -> list[str]:
    """Name the records that the call itself names."""
    refs = [] if isinstance(presented, Reason) else [ref(Kind.KEY, presented.id)]
    if call.publication:
        refs.append(ref(Kind.PUBLICATION, call.publication))
    elif call.openai_host and refs:
        refs.append(ref(Kind.HOST, call.openai_host))
    return refs


def _second_refs(batch: _Batch, index: int, entries: dict[str, Entry]) -> list[str]:
    """Name the records that the first ones name: the key's tenant, the publication its host's table gives."""
    call = batch.calls[index]
    key = _key(batch.presented[index], entries)
    refs = [ref(Kind.TENANT, key.record.tenant)] if key else []
    uid = resolve_model(_host(call, entries), key, call.body_model)
    if uid:
        refs.append(ref(Kind.PUBLICATION, uid))
    return refs


def _all_refs(batch: _Batch, index: int, entries: dict[str, Entry]) -> list[str]:
    return _first_refs(batch.calls[index], batch.presented[index]) + _second_refs(batch, index, entries)


def _missing(batch: _Batch, epoch: str, wanted: Iterable[str], entries: dict[str, Entry]) -> list[str]:
    known_absent = batch.absent if batch.absent_epoch == epoch else ()
    return [r for r in wanted if r not in entries and r not in known_absent]


def _key(presented: ParsedKey | Reason, entries: dict[str, Entry]) -> KeyEntry | None:
    if isinstance(presented, Reason):
        return None
    entry = entries.get(ref(Kind.KEY, presented.id))
    return entry if isinstance(entry, KeyEntry) else None


def _host(call: Call, entries: dict[str, Entry]) -> HostEntry | None:
    entry = entries.get(ref(Kind.HOST, call.openai_host)) if call.openai_host and not call.publication else None
    return entry if isinstance(entry, HostEntry) else None


def _facts(batch: _Batch, index: int, entries: dict[str, Entry]) -> Facts:
    call = batch.calls[index]
    key, host = _key(batch.presented[index], entries), _host(call, entries)
    tenant = entries.get(ref(Kind.TENANT, key.record.tenant)) if key else None
    uid = call.publication or resolve_model(host, key, call.body_model)
    publication = entries.get(ref(Kind.PUBLICATION, uid)) if uid else None
    return Facts(
        key=key,
        tenant=tenant if isinstance(tenant, TenantEntry) else None,
        publication=publication if isinstance(publication, PublicationEntry) else None,
        host=host,
    )
