"""commit.lua and announce.lua under fire: odd changes, on epochs, feeds and records that somebody wrote over.

What is answered as done is there, whole, under a new epoch; what is refused changed nothing.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from typing import Any, Final

import redis
import redis.asyncio
from msgspec import structs
from redis.exceptions import RedisError, ResponseError

from catalog.actors import Recordless
from catalog.changes import Audit, Change, Check, Delete, Put, Room
from catalog.damage import CorruptRecord
from catalog.records import Kind, Limits, TenantRecord, encode
from catalog.store import names
from catalog.store.announcing import announce
from catalog.store.store import CatalogStore, Conflict, NoRoom, OutcomeUnknown, StoreUnavailable
from tests.fuzz.found import Found, Tally
from tests.fuzz.texts import mutated, odd_text

CELL: Final = 7
COMMIT_CELL: Final = "0"
GAME: Final = 40
_EPOCH: Final = re.compile(rb"[1-9][0-9]{0,18}-[0-9a-f]{16}")
_REFUSED: Final = (Conflict, NoRoom, CorruptRecord, ValueError, OutcomeUnknown, StoreUnavailable)


def _spoil(rng: random.Random, store: redis.Redis, key: str) -> None:
    """Leave something at a key that the product never writes there."""
    now = store.get(key) if store.type(key) == b"string" else None
    store.delete(key)
    kind = rng.randrange(5)
    if kind == 0:
        store.rpush(key, "a list")
    elif kind == 1:
        store.xadd(key, {"a": "stream"}, id=f"{rng.choice((1, 10**6, 2**53, 2**63))}-{rng.randrange(3)}")
    elif kind == 2:
        store.set(key, f"{rng.choice((0, 7, 2**53, 2**64, 10**30))}-{rng.randbytes(8).hex()}")
    elif kind == 3:
        store.set(key, mutated(rng, now or b'{"id":"a","version":1}'))


def _records_epoch(rng: random.Random) -> str:
    """What a teller may say of the records' store: nothing, an epoch, or odd text."""
    epoch = f"{rng.choice((0, 7, 2**53, 10**30))}-{rng.randbytes(8).hex()}"
    return str(rng.choice(("", epoch, odd_text(rng)[:200])))


class AnnounceTarget:
    """Feeds announce.lua."""

    name = "announce"

    def __init__(self, store: redis.Redis, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._epoch_key, self._feed_key = names.epoch(str(CELL)), names.feed(str(CELL))

    def run(self, rng: random.Random, count: int) -> None:
        """Announce this often; raises ``Found``."""
        for number in range(count):
            if number % GAME == 0:
                self._store.flushdb()
            if rng.random() < 0.03:
                _spoil(rng, self._store, rng.choice((self._epoch_key, self._feed_key, names.records(str(CELL)))))
            self._announce(rng)

    def _announce(self, rng: random.Random) -> None:
        refs = [odd_text(rng)[:2_000] for _ in range(rng.randrange(4))]
        before = self._dumps()
        try:
            epoch = self._store.execute_command(*announce(CELL, refs, _records_epoch(rng), rng.randbytes))
        except ResponseError:
            if self._dumps()[0] != before[0]:
                raise Found("a refused announcement set an epoch") from None
            self._tally.add(self.name, "refused")
            return
        except RedisError as error:
            raise Found(f"the store is gone: {error}") from error
        if not _EPOCH.fullmatch(epoch) or self._store.get(self._epoch_key) != epoch:
            raise Found(f"the epoch answered, {epoch!r}, is not the one in force")
        (_, entry), *_ = self._store.xrevrange(self._feed_key, count=1)
        if entry != {b"epoch": epoch, b"refs": " ".join(refs).encode()}:
            raise Found("the feed's last entry is not the announcement")
        self._tally.add(self.name, "told")

    def _dumps(self) -> list[bytes | None]:
        return [self._store.dump(key) for key in (self._epoch_key, self._feed_key)]


class CommitTarget:
    """Feeds commit.lua through its caller."""

    name = "commit"

    def __init__(self, url: str, store: redis.Redis, tally: Tally) -> None:
        self._url = url
        self._store = store
        self._tally = tally
        self._ids = ("tenant-a", "tenant-b", "tenant-c", "é/ü", "a:b")

    def run(self, rng: random.Random, count: int) -> None:
        """Commit this often; raises ``Found``."""

        async def work() -> None:
            async with redis.asyncio.Redis.from_url(self._url) as client:
                for number in range(count):
                    if number % GAME == 0:
                        self._store.flushdb()
                    await self._commit(CatalogStore(client, entropy=rng.randbytes), rng)

        asyncio.run(work())

    async def _commit(self, catalog: CatalogStore, rng: random.Random) -> None:
        if rng.random() < 0.03:
            _spoil(rng, self._store, rng.choice((names.epoch(COMMIT_CELL), names.feed(COMMIT_CELL), self._record(rng))))
        changes = [self._change(rng) for _ in range(rng.randrange(1, 4))]
        before = self._state()
        try:
            done = await catalog.commit(changes, audit=self._audit(rng))
        except _REFUSED as refused:
            if self._state() != before:
                raise Found(f"a refused commit changed something: {refused!r}") from refused
            self._tally.add(self.name, "refused")
            return
        self._judge(done.epoch.encode(), changes)
        self._tally.add(self.name, "written")

    def _judge(self, epoch: bytes, changes: Sequence[Change]) -> None:
        if not _EPOCH.fullmatch(epoch) or self._store.get(names.epoch(COMMIT_CELL)) != epoch:
            raise Found(f"the epoch answered, {epoch!r}, is not the one in force")
        for change in changes:
            if isinstance(change, Put):
                stored = self._store.get(names.record(f"tenant:{change.record.id}"))
                if stored is None or stored != encode(_written(change)):
                    raise Found(f"{change} is stored as {stored!r}")
            if isinstance(change, Delete) and self._store.exists(names.record(f"tenant:{change.id}")):
                raise Found(f"{change} left its record")

    def _state(self) -> dict[bytes, bytes | None]:
        return {key: self._store.dump(key) for key in sorted(self._store.scan_iter("tk:rec:*"))} | {
            b"epoch": self._store.dump(names.epoch(COMMIT_CELL))
        }

    def _record(self, rng: random.Random) -> str:
        return names.record(f"tenant:{rng.choice(self._ids)}")

    def _change(self, rng: random.Random) -> Change:
        record_id = rng.choice(self._ids) if rng.random() < 0.95 else odd_text(rng)[:300]
        version = rng.choice((0, 1, 2)) if rng.random() < 0.8 else rng.choice((-2, -1, 10**9, 2**60))
        kind = rng.randrange(6)
        if kind == 0:
            return Delete(Kind.TENANT, record_id, version)
        if kind == 1:
            return Check(Kind.TENANT, record_id, version)
        if kind == 2:
            return Room(Kind.KEY, record_id, rng.choice((0, 1, 100)), allowed=rng.random() < 0.5)
        record = TenantRecord(
            record_id, rng.randrange(4096), 0, 0, limits=Limits(burst=rng.choice((None, 1, -1, 10**30))),
            hosts=tuple(odd_text(rng)[:80] for _ in range(rng.randrange(3))),
        )  # fmt: skip
        return Put(record, version)

    @staticmethod
    def _audit(rng: random.Random) -> Audit:
        action, target, tenant, request_id = (odd_text(rng)[:500] for _ in range(4))
        return Audit(Recordless.START, action, target, tenant, request_id, {odd_text(rng)[:50]: odd_text(rng)[:50]})


def _written(put: Put) -> Any:
    return structs.replace(put.record, version=max(put.expected_version, 0) + 1)
