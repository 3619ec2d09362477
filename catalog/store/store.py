"""The catalog's store: records read, and changed by compare-and-set in one atomic script.

The one caller of lua/commit.lua. Knows no meaning of a change: which records go together is the caller's business.

A commit is answered by the store when it is as durable as the store's settings make it: under ``appendfsync always``
the reply comes after the disk has it. ``WAITAOF`` is not used: under ``everysec`` it was seen to answer before.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from catalog.cell_number import differing
from catalog.changes import (
    CORRUPT,
    REFS_MAX,
    UNREAD,
    Audit,
    Below,
    Bury,
    Change,
    Check,
    Committed,
    Delete,
    Note,
    Put,
    Room,
)
from catalog.damage import CorruptRecord, decoded, read
from catalog.records import Kind, Record, ref
from catalog.store import names
from catalog.store.announcing import EPOCH_BYTES, Announcer
from catalog.store.health import SETTINGS, Health, health_of
from catalog.store.layout import (
    bound_of,
    change_arguments,
    held_key,
    id_of,
    index_key,
    is_read,
    kind_of,
    lexical_range,
    note_arguments,
    ref_of,
    versioned,
    writes_of,
)
from catalog.store.reader import Delta, delta_of, history
from catalog.tombstones import Tombstone
from catalog.tombstones import decode as decode_tombstone

TIMEOUT_S: Final = 3.0
"""Longest wait for an answer: after it the outcome is unknown and the operator looks."""

LEAST_S: Final = 0.5
"""Time that telling the budgets store has at least, however long the writing took."""

AUDIT_AGE_MS: Final = 366 * 24 * 3_600_000
"""How long audit entries are kept, in milliseconds: a year."""

PAGE: Final = 500
"""Most records or ids read by one command."""

MAX_CHANGES: Final = 1_000
"""Most changes of one commit: the store does nothing else meanwhile (some ms)."""

MAX_ID_BYTES: Final = 512
_WRONG_TYPE: Final = "WRONGTYPE"

_REFUSALS: Final = (ResponseError, BusyLoadingError, AuthenticationError)  # replies, not lost connections
_log: Final = logging.getLogger(__name__)


class Conflict(Exception):  # noqa: N818  an outcome, not a fault
    """An expectation did not hold; nothing was written."""

    def __init__(self, ref: str, found_version: int) -> None:
        super().__init__(f"{ref}: version {found_version} found where another was expected")
        self.ref = ref
        self.found_version = found_version  # 0: there is no such record; CORRUPT: it cannot be read


class ActorChanged(Exception):  # noqa: N818  an outcome, not a fault
    """The acting user's record is another than the one that authorised them; nothing was written."""


class NoRoom(Exception):  # noqa: N818  an outcome, not a fault
    """A ``Room`` was too small; nothing was written."""

    def __init__(self, ref: str, found: int) -> None:
        super().__init__(f"{ref}: there are {found} already")
        self.kind = Kind(ref.split(":")[1])
        self.found = found  # records there are


class OutcomeUnknown(Exception):  # noqa: N818
    """The commit was sent and no answer came: it is in force or it never will be. Look before trying again."""


class StoreUnavailable(Exception):  # noqa: N818
    """The store did not run the command: not reached, or it refused. Nothing was written."""


class StoreRefused(StoreUnavailable):
    """The store answered that it does not run the command: no disk, no memory, a replica, no permission."""


_DONE: Final = 1
_OTHER_CELLS: Final = 4
_CONFLICT: Final = 0
_LATE: Final = 3
_OUTCOMES: Final = {_CONFLICT: Conflict, 2: NoRoom}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An act as it was recorded."""

    id: str  # of the entry; the next page starts before it
    time_ms: int  # the store's clock at the act
    audit: Note


class CatalogStore:
    """Reads and commits records.

    Takes connections from ``client``'s pool and speaks on them itself, so nothing is sent twice, whatever retries
    the client was made with. Where budgets are kept in another store, ``announcer`` tells it of every change before
    that is answered. Every method raises ``StoreUnavailable`` when no answer could be had in ``timeout_s``;
    ``commit`` alone raises ``OutcomeUnknown`` when it may have run.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        cell: str = "0",
        timeout_s: float = TIMEOUT_S,
        entropy: Callable[[int], bytes] = os.urandom,
        announcer: Announcer | None = None,
    ) -> None:
        self._announcer = announcer
        self._cells = announcer.cells if announcer else 1
        self._pool = client.connection_pool
        self._cell = cell
        self._timeout_s = timeout_s
        self._entropy = entropy
        self._script = files("catalog.store").joinpath("lua/commit.lua").read_bytes()

    @property
    def is_told(self) -> bool:
        """Whether the budgets store knows of every change that was written."""
        return self._announcer is None or not self._announcer.owes

    async def get(self, kind: Kind, record_id: str) -> Record | None:
        """Read one record, None when there is none; raises ``CorruptRecord`` when it cannot be read."""
        name = ref(kind, record_id)
        try:
            raw = await self._ask("GET", names.record(name))
        except StoreRefused as error:
            if _WRONG_TYPE in str(error):
                raise CorruptRecord(name) from error
            raise
        return None if raw is None else decoded(kind, record_id, raw)

    async def get_many(self, kind: Kind, ids: Sequence[str]) -> dict[str, Record]:
        """Read records by id, in the order asked; those that do not exist or cannot be read (logged) are left out."""
        found: dict[str, Record] = {}
        for start in range(0, len(ids), PAGE):
            found |= _readable(await self.read_page(kind, ids[start : start + PAGE]))
        return found

    async def read_page(self, kind: Kind, ids: Sequence[str]) -> dict[str, Record | CorruptRecord | None]:
        """Read at most ``PAGE`` records by id, in the order asked: ``None`` for those that MGET finds nothing of.

        These do not exist, or are no strings, which ``get`` tells apart.
        """
        values = await self._ask("MGET", *(names.record(ref(kind, record_id)) for record_id in ids)) if ids else []
        return {one: None if raw is None else read(kind, one, raw) for one, raw in zip(ids, values, strict=True)}

    async def ids(self, kind: Kind, *, after: str = "", prefix: str = "", limit: int = PAGE) -> list[str]:
        """Read the ids of a kind in lexicographic order: those after ``after`` that begin with ``prefix``.

        ``limit`` is the most ids read.
        """
        first, last = lexical_range(after, prefix)
        reply = await self._ask("ZRANGE", names.index(kind), first, last, "BYLEX", "LIMIT", 0, limit)
        return [raw.decode() for raw in reply]

    async def ids_of(
        self, kind: Kind, tenants: Sequence[str], *, after: str = "", limit: int = PAGE, allowed: bool = False
    ) -> list[str]:
        """Read the ids of these tenants' records in lexicographic order, those after ``after``, in one round trip.

        ``allowed``: of the publications that let one of them call instead.
        """
        first, last = lexical_range(after, "")
        ranges = (names.group(kind, tenant, allowed=allowed) for tenant in tenants)
        replies = await self._ask_all([("ZRANGE", one, first, last, "BYLEX", "LIMIT", 0, limit) for one in ranges])
        merged = (one for one, _ in itertools.groupby(heapq.merge(*replies)))
        return [raw.decode() for raw in itertools.islice(merged, limit)]

    async def count(self, room: Room) -> int:
        """Count the records that a ``Room`` is about."""
        return int(await self._ask("ZCARD", held_key(room)))

    async def count_all(self, kind: Kind) -> int:
        """Count the records of a kind."""
        return int(await self._ask("ZCARD", names.index(kind)))

    async def count_below(self, below: Below) -> int:
        """Count the records that a ``Below`` is about."""
        return (await self.counts_below([below]))[0]

    async def counts_below(self, belows: Sequence[Below]) -> list[int]:
        """Count the records that each is about, in one round trip."""
        asked = [
            ("ZLEXCOUNT", key, *lexical_range("", one.prefix))
            for one in belows
            for key in (names.index(one.kind), held_key(one))
        ]
        counts = [int(reply) for reply in await self._ask_all(asked)]
        return [every - own for every, own in zip(counts[::2], counts[1::2], strict=True)]

    async def epoch(self) -> str:
        """Read the epoch in force; "" where nothing was ever committed."""
        return (await self._ask("GET", names.epoch(self._cell)) or b"").decode("utf-8", "replace")

    async def changes_since(self, epoch: str) -> Delta | None:
        """Tell what changed since an epoch, as ``reader.catch_up`` does: ``None`` where everything may have."""
        now = await self.epoch()
        if now == epoch:
            return Delta(epoch, frozenset())
        if not (now and epoch):
            return None
        return delta_of(epoch, now, await self._ask(*history(epoch, cell=self._cell)))

    async def now_ms(self) -> int:
        """Return the store's clock in milliseconds."""
        seconds, microseconds = await self._ask("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def commit(self, changes: Sequence[Change], *, audit: Audit, forget_usage: Sequence[str] = ()) -> Committed:
        """Write all changes, a new epoch, the feed's entry and the audit entry, or nothing.

        ``forget_usage`` names usage hashes that are nobody's any more. Raises ``ActorChanged`` when the acting user's
        record is not as it was when they were authorised, ``Conflict`` when another expectation fails, ``NoRoom`` when
        a tenant has too many, ``OutcomeUnknown`` when no answer came, ``StoreUnavailable`` when it surely did not run,
        ``ValueError`` for changes that make no sense (the same record twice, an id with spaces).
        """
        written = [versioned(change) for change in _authorised(changes, audit)]
        _refuse_nonsense(written)
        begun_s = time.monotonic()
        epoch = await self._write(written, audit, () if self._announcer else forget_usage)
        if self._announcer and is_read(written):
            await self._tell_budgets(self._announcer, written, begun_s + self._timeout_s, epoch)
            await self._retire(self._announcer, forget_usage, audit.tenant, begun_s + self._timeout_s)
        records = {ref_of(change): change.record for change in written if isinstance(change, Put)}
        return Committed(epoch, records)

    async def _write(self, changes: Sequence[Change], audit: Audit, forget_usage: Sequence[str]) -> str:
        """Run commit.lua; returns the epoch it made."""
        keys, arguments = self._layout(changes, audit.note, forget_usage, last_ms=await self._last_ms())
        command = ("EVAL", self._script, len(keys), *keys, *arguments)  # so rare that it needs no NOSCRIPT round
        try:
            done, *answer = await _exchange(self._pool, command, self._timeout_s)
        except OutcomeUnknown:
            if self._announcer and is_read(changes):
                self._announcer.owe()
            raise
        if done == _OTHER_CELLS:
            raise StoreRefused(differing(self._cells, int(answer[0])))
        if done == _LATE:
            raise StoreUnavailable("the store came to it too late and wrote nothing")
        if done != _DONE:
            raise _refused(done, answer[0].decode(), int(answer[1]), audit)
        return str(answer[0].decode())

    async def _last_ms(self) -> int:
        """Say until when a commit may be written, by the store's clock; 0: whenever.

        Where the budgets store has to be told, a write must not come after we gave up and told it: this is learnt
        before the commit is sent, so it has passed when the wait for its answer ends.
        """
        return await self.now_ms() + int(self._timeout_s * 1000) - 1 if self._announcer else 0

    async def _tell_budgets(self, announcer: Announcer, changes: Sequence[Change], until_s: float, epoch: str) -> None:
        """Make the change known where calls are admitted; it is in force only then."""
        left_s = max(LEAST_S, until_s - time.monotonic())
        changed = [ref_of(change) for change in writes_of(changes) if kind_of(change) not in UNREAD]
        try:
            await announcer.announce_all(changed if len(changed) <= REFS_MAX else (), left_s, epoch)
        except (RedisError, OSError) as error:
            raise OutcomeUnknown(f"written, but the budgets store does not know of it yet: {error}") from error

    async def _retire(self, announcer: Announcer, usage: Sequence[str], tenant: str, until_s: float) -> None:
        if usage:
            await announcer.retire(usage, tenant, max(LEAST_S, until_s - time.monotonic()))

    async def note(self, note: Note) -> None:
        """Write down an act that changed no record: neither epoch nor feed move."""
        now_ms = await self.now_ms()
        told = zip(_AUDIT_FIELDS, note_arguments(note), strict=True)
        entry = ["time_ms", now_ms, *(word for pair in told for word in pair)]
        await self._ask("XADD", names.AUDIT, "MINID", "~", now_ms - AUDIT_AGE_MS, "*", *entry)

    async def audit_page(self, *, before: str = "", limit: int = 100) -> list[AuditEntry]:
        """Read audit entries, newest first; ``before`` is the id of the last entry already seen."""
        if before and not any(map(int, before.split("-"))):
            return []  # nothing is older than the first id of all, and the store has no word for that
        end = f"({before}" if before else "+"
        reply = await self._ask("XREVRANGE", names.AUDIT, end, "-", "COUNT", limit)
        return [_audit_entry(entry_id, fields) for entry_id, fields in reply]

    async def tombstone(self, key_id: str) -> Tombstone | None:
        """Read what stays of a deleted key; ``None`` where nothing does, or it cannot be read (logged)."""
        return _stone(key_id, await self._ask("GET", names.tombstone(key_id)))

    async def tombstones(
        self, tenant: str, *, before: str = "", limit: int = PAGE
    ) -> list[tuple[str, Tombstone | None]]:
        """Read a tenant's deleted keys by their places, the newest first, those before ``before``.

        A place without a tombstone is of one whose time is over.
        """
        asked = ("ZRANGE", names.tombstones(tenant), f"({before}" if before else "+", "-", "BYLEX", "REV")
        places = [raw.decode() for raw in await self._ask(*asked, "LIMIT", 0, limit)]
        ids = [place.partition(":")[2] for place in places]
        values = await self._ask("MGET", *map(names.tombstone, ids)) if ids else []
        return [(place, _stone(one, raw)) for place, one, raw in zip(places, ids, values, strict=True)]

    async def health(self) -> Health:
        """Ask the store how it keeps its data."""
        return health_of({name: await self._setting(name) for name in SETTINGS})

    def _layout(
        self, changes: Sequence[Change], note: Note, forget: Sequence[str], *, last_ms: int
    ) -> tuple[list[str], list[Any]]:
        """Lay out commit.lua's keys and arguments."""
        keys = [names.epoch(self._cell), names.feed(self._cell), names.AUDIT, names.index(Kind.TENANT)]
        keys.append(names.cells(self._cell))
        arguments: list[Any] = [self._entropy(EPOCH_BYTES).hex(), len(changes), AUDIT_AGE_MS]
        arguments += [*note_arguments(note), last_ms, self._cells]
        for change in changes:
            keys += [held_key(change), index_key(change)]
            arguments += change_arguments(change)
        return [*keys, *forget], arguments

    async def _setting(self, name: str) -> Sequence[bytes] | None:
        """Return the reply about a setting of the store, None where it does not tell."""
        try:
            reply: Any = await self._ask("CONFIG", "GET", name)
        except StoreRefused:
            return None
        return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply

    async def _ask(self, *command: Any) -> Any:
        """Run a command that changes nothing."""
        return (await self._ask_all([command]))[0]

    async def _ask_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands that change nothing, in one round trip."""
        try:
            return await _exchange_all(self._pool, commands, self._timeout_s)
        except OutcomeUnknown as error:
            raise StoreUnavailable(str(error)) from error


async def _exchange(pool: redis.asyncio.ConnectionPool, command: Sequence[Any], timeout_s: float) -> Any:
    """Send one command once and return the reply as it came."""
    return (await _exchange_all(pool, [command], timeout_s))[0]


async def _exchange_all(
    pool: redis.asyncio.ConnectionPool, commands: Sequence[Sequence[Any]], timeout_s: float
) -> list[Any]:
    """Send commands once, together, and return the replies as they came."""
    sent = False
    try:
        async with asyncio.timeout(timeout_s):
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # its decorator hides its type
            sent = True
            try:
                return await _replies(connection, commands)
            finally:
                await pool.release(connection)
    except _REFUSALS as error:
        raise _refusal(error) from error
    except (RedisError, OSError) as error:  # TimeoutError is an OSError
        why = str(error) or "not in time"
        if sent:
            raise OutcomeUnknown(f"no answer from the store: {why}") from error
        raise StoreUnavailable(f"the store cannot be reached: {why}") from error


async def _replies(connection: redis.asyncio.Connection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send and read everything, so that no reply is left for who comes next; raises the first refusal."""
    await connection.send_packed_command(connection.pack_commands(commands))  # left half-way, redis-py disconnects
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as refused:
            replies.append(refused)
    if refusals := [one for one in replies if isinstance(one, ResponseError)]:
        raise refusals[0]
    return replies


def _refusal(error: Exception) -> StoreRefused | OutcomeUnknown:
    """Tell a command that the store refused to start from a script that failed within, perhaps after a write."""
    if "script:" in str(error):
        return OutcomeUnknown(f"the script failed: {error}")
    return StoreRefused(f"the store refused: {error}")


def _stone(key_id: str, raw: bytes | None) -> Tombstone | None:
    try:
        return None if raw is None else decode_tombstone(raw)
    except ValueError:
        _log.error("the tombstone of key %s cannot be read; it is left out", key_id)
        return None


_AUDIT_FIELDS: Final = ("actor", "action", "target", "tenant", "request_id", "detail")


def _authorised(changes: Sequence[Change], audit: Audit) -> list[Change]:
    """Hold the actor before anything else; an act on the actor's own record holds it by itself.

    Raises ``ActorChanged`` where that record was read in another state than the one that authorised them.
    """
    held = audit.held()
    if held is None:
        return list(changes)
    own = [change for change in changes if ref_of(change) == ref_of(held)]
    if not all(_is_of(change, held) for change in own):
        raise ActorChanged
    return [*(own or [held]), *(change for change in changes if change not in own)]


def _is_of(change: Change, held: Check) -> bool:
    """Whether a change of a record is one of the state that is held."""
    if isinstance(change, Room | Below | Bury) or bound_of(change) != held.expected_version:
        return False
    return (change.record.created_at_ms if isinstance(change, Put) else change.created_at_ms) == held.created_at_ms


def _refused(done: int, reference: str, found: int, audit: Audit) -> Exception:
    held = audit.held()
    if done == _CONFLICT and held is not None and reference == ref_of(held):
        return ActorChanged()
    return _OUTCOMES[done](reference, found)


def _refuse_nonsense(changes: Sequence[Change]) -> None:
    if len(changes) > MAX_CHANGES:
        raise ValueError(f"a commit of {len(changes)} changes: must be at most {MAX_CHANGES}")
    refs = [ref_of(change) for change in changes]
    if len(set(refs)) < len(refs):
        raise ValueError("a commit names each record once")
    for change in changes:
        _refuse_bad_id(id_of(change))
        least = CORRUPT if isinstance(change, Delete | Put) else 0
        if bound_of(change) < least:
            raise ValueError(f"{ref_of(change)}: expected version must be at least {least}")


def _refuse_bad_id(record_id: str) -> None:
    """References stand between spaces in the feed."""
    if not record_id or len(record_id.encode()) > MAX_ID_BYTES or record_id.split() != [record_id]:
        raise ValueError(f"record id {record_id!r}: must be 1 to {MAX_ID_BYTES} bytes without white space")


def _readable(read: Mapping[str, Record | CorruptRecord | None]) -> dict[str, Record]:
    """Keep what could be read; a corrupt record fails alone."""
    found: dict[str, Record] = {}
    for record_id, one in read.items():
        if isinstance(one, CorruptRecord):
            _log.error("%s; it is left out", one)
        elif one is not None:
            found[record_id] = one
    return found


def _audit_entry(entry_id: bytes, flat: Sequence[bytes]) -> AuditEntry:
    fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
    time_ms, detail = int(fields.pop("time_ms")), json.loads(fields.pop("detail"))
    return AuditEntry(entry_id.decode(), time_ms, Note(detail=detail, **fields))
