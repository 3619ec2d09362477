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
    read_epoch: str | None = None  # in force at some moment since these calls came; None: not looked at yet

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
    admissions: dict[int, Admission] = field(default_factory=dict)
    refusals: dict[int, Verdict] = field(default_factory=dict)


def _ignore(*_told: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Events:
    """Who is told what happens in a batch, besides its verdicts."""

    stale: Callable[[int], None] = _ignore  # so many calls are decided again
    gathered: Callable[[int, int], None] = _ignore  # so many records were needed, so many of them read from the store
    unknown_outcome: Callable[[int], None] = _ignore  # so many calls are refused though the store may have counted them
    store_error: Callable[[RedisError], None] = _ignore


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
        now_ms: Callable[[], int] = lambda: 0,
        on: Events = Events(),
    ) -> None:
        self._cache = cache
        self._records = records
        self._limiter = limiter
        self._secrets = secrets
        self._now_ms = now_ms
        self._on = on

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
            self._on.store_error(error)
            reason = Reason.STORE_TIMEOUT if isinstance(error, StoreTimeoutError) else Reason.STORE_AWAY
            batch.close(batch.open_calls(), reason)
        return [verdict or Verdict(Reason.RECORDS_CHANGING) for verdict in batch.verdicts]

    def _refuse_locally(self, batch: _Batch) -> None:
        """Answer the calls that no record could admit: forged and missing keys never reach the store."""
        for index, (call, presented) in enumerate(zip(batch.calls, batch.presented, strict=True)):
            if not needs_records(call, presented):
                _, entries = self._cache.look(_first_refs(call, presented))  # for the metrics' labels only
                decision = decide(call, presented, _facts(batch, index, entries), self._secrets, now_ms=0)
                batch.verdicts[index] = _refused(decision) if isinstance(decision, Refusal) else None

    def _work(self, batch: _Batch, execute: Execute) -> None:
        for tried in range(1, TRIES + 1):
            if not batch.open_calls():
                return
            decided = self._decide_open(batch, execute)
            newer = self._settle(batch, execute, decided, is_last=tried == TRIES)
            if newer is None:
                return
            self._on.stale(len(batch.open_calls()))
            self._catch_up(execute, newer)

    def _decide_open(self, batch: _Batch, execute: Execute) -> _Decided:
        """Decide the open calls on records of one epoch."""
        epoch, facts = self._gather(batch, execute)
        decided = _Decided(epoch)
        now_ms = self._now_ms()
        for index, fact in facts.items():
            decision = decide(batch.calls[index], batch.presented[index], fact, self._secrets, now_ms=now_ms)
            if isinstance(decision, Admission):
                decided.admissions[index] = decision
            else:
                decided.refusals[index] = _refused(decision)
        return decided

    def _settle(self, batch: _Batch, execute: Execute, decided: _Decided, *, is_last: bool) -> str | None:
        """Let what was decided stand if its epoch is in force; otherwise return the newer one and change nothing."""
        if not decided.admissions:
            in_force = self._in_force(batch, execute, decided.epoch)
            if in_force != decided.epoch and not is_last:
                return in_force
        else:
            taken = self._take(batch, execute, decided, by_records=is_last)
            if taken.fence is Fence.STALE:
                return taken.epoch
            if taken.fence is Fence.LATE:
                batch.close(batch.open_calls(), Reason.STORE_TIMEOUT)
                return None
            self._close_taken(batch, decided.admissions, taken)
        for index, verdict in decided.refusals.items():
            batch.verdicts[index] = verdict
        return None

    def _in_force(self, batch: _Batch, execute: Execute, epoch: str) -> str:
        """Tell the epoch in force since these calls came: a refusal must not rest on what a change has put right."""
        return epoch if batch.read_epoch == epoch else self._records.read(execute, ()).epoch

    def _take(self, batch: _Batch, execute: Execute, decided: _Decided, *, by_records: bool) -> Taken:
        charges = [admission.charge for admission in decided.admissions.values()]
        try:
            return self._limiter.take(
                execute, charges, epoch=decided.epoch, deadline_ms=batch.deadline_ms, by_records=by_records
            )
        except (NotConnectedError, NotSentError):
            raise
        except RedisError:
            self._on.unknown_outcome(len(charges))
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
        read = 0
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
                self._on.gathered(len(first | second), read)
                return epoch, {
                    index: _facts(batch, index, entries) for index in self._readable(batch, indexes, entries)
                }
            self._fetch(batch, execute, missing)
            read += len(missing)
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
        batch.read_epoch = snapshot.epoch
        entries, unusable = _entries(snapshot)
        if not self._cache.insert(snapshot.epoch, entries):
            self._catch_up(execute, snapshot.epoch)
            return
        if batch.absent_epoch != snapshot.epoch:
            batch.absent, batch.corrupt, batch.absent_epoch = set(), set(), snapshot.epoch
        batch.corrupt |= snapshot.corrupt | unusable
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


def _entries(snapshot: Snapshot) -> tuple[dict[str, Entry], set[str]]:
    """Make the records ready; with the names of those that no decision can use (a limit out of range)."""
    entries: dict[str, Entry] = {}
    unusable = set()
    for name, record in snapshot.records.items():
        try:
            entry = entry_of(record) if record is not None else None
        except ValueError:
            unusable.add(name)
            continue
        if entry is not None:
            entries[name] = entry
    return entries, unusable


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
