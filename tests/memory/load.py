"""Callers at full speed and an operator who never stops changing keys: the load under which memory must stay flat."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import redis.asyncio
from msgspec import structs

from catalog.actors import Recordless
from catalog.changes import Audit, Change, Delete, Put
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Kind, Limits, PublicationRecord
from catalog.store.store import CatalogStore
from extauth.edge import CHECK_PATH
from protos.external_auth_pb2 import CheckResponse
from ratelimit import names
from tests.support.gatebench import question

PIPELINE: Final = 64
"""Calls that one caller has under way."""
CHANGE_EVERY_S: Final = 0.05
"""Pause between two changes: twenty a second are far above any team's, and leave calls time to be decided."""
LIVE_KEYS: Final = 300
DEAD_KEYS: Final = 2_000
"""Texts of revoked and rotated keys that callers still try."""
TENANT: Final = "tenant-a"
LIMITS: Final = Limits(burst=10**6, per_minute=10**7, per_hour=10**8)
_ADDRESS: Final = "x-envoy-external-address"


@dataclass(slots=True)
class Texts:
    """Which key texts there are. One thread changes them, the callers read."""

    live: dict[str, tuple[KeyRecord, str]] = field(default_factory=dict)  # by key id
    live_texts: list[str] = field(default_factory=list)
    dead: deque[str] = field(default_factory=lambda: deque(maxlen=DEAD_KEYS))
    changes: int = 0


class Operator:
    """Mints, rotates and revokes keys, one change after another, as the admin writes them."""

    def __init__(self, url: str, secrets: Secrets, publication: PublicationRecord, texts: Texts, seed: int) -> None:
        self._url = url
        self._secrets = secrets
        self._publication = publication
        self._texts = texts
        self._rng = random.Random(seed)

    def keep_changing(self, stop: threading.Event) -> None:
        """Change until told to stop."""
        asyncio.run(self._work(stop))

    async def _work(self, stop: threading.Event) -> None:
        async with redis.asyncio.Redis.from_url(self._url) as client:
            store = CatalogStore(client)
            while not stop.is_set():
                act = (
                    self._mint if len(self._texts.live) < LIVE_KEYS else self._rng.choice((self._rotate, self._revoke))
                )
                await act(store)
                self._texts.live_texts = [text for _, text in self._texts.live.values()]
                self._texts.changes += 1
                await asyncio.sleep(CHANGE_EVERY_S)

    async def _mint(self, store: CatalogStore) -> None:
        key_id = new_id(shard_of(TENANT), os.urandom)
        text = mint(key_id, self._secrets, os.urandom)
        uids = (self._publication.uid,)
        record = KeyRecord(key_id, TENANT, "soak", uids, hash_key(text, self._secrets), 0, 0, limits=LIMITS)
        await self._commit(store, Put(record, 0))
        self._texts.live[key_id] = (record, text.reveal())

    async def _rotate(self, store: CatalogStore) -> None:
        record, old = self._texts.live[self._rng.choice(list(self._texts.live))]
        text = mint(record.id, self._secrets, os.urandom)
        changed = structs.replace(record, current=hash_key(text, self._secrets))
        await self._commit(store, Put(changed, record.version))
        self._texts.live[record.id] = (structs.replace(changed, version=record.version + 1), text.reveal())
        self._texts.dead.append(old)

    async def _revoke(self, store: CatalogStore) -> None:
        record, text = self._texts.live[self._rng.choice(list(self._texts.live))]
        await self._commit(store, Delete(Kind.KEY, record.id, record.version), record.id)
        del self._texts.live[record.id]
        self._texts.dead.append(text)

    @staticmethod
    async def _commit(store: CatalogStore, change: Change, *gone: str) -> None:
        forget = [names.usage_key("0", f"k:{key_id}") for key_id in gone]
        await store.commit([change], audit=Audit(Recordless.START, "soak", "key", TENANT, ""), forget_usage=forget)


class Caller:
    """Keeps ``PIPELINE`` calls under way: good keys, dead ones, never minted ones, and none, from many addresses."""

    def __init__(
        self,
        target: str,
        secrets: Secrets,
        keyed: PublicationRecord,
        opened: PublicationRecord,
        texts: Texts,
        seed: int,
    ) -> None:
        self._channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        self._check = self._channel.unary_unary(CHECK_PATH)
        self._secrets = secrets
        self._keyed = keyed
        self._opened = opened
        self._texts = texts
        self._rng = random.Random(seed)
        self.answers: Counter[str] = Counter()

    def keep_calling(self, stop: threading.Event) -> None:
        """Call until told to stop."""
        under_way: deque[Any] = deque()
        while not stop.is_set():
            while len(under_way) < PIPELINE:
                under_way.append(self._check.future(self._payload(), timeout=10))
            self._count(under_way.popleft())
        for call in under_way:
            self._count(call)
        self._channel.close()

    def _count(self, call: Any) -> None:
        try:
            response = CheckResponse.FromString(call.result())
        except grpc.RpcError as error:
            self.answers[str(error.code())] += 1
            return
        denied = response.HasField("denied_response")
        self.answers[str(response.denied_response.status.code if denied else 200)] += 1

    def _payload(self) -> bytes:
        kind = self._rng.random()
        if kind < 0.15:
            return self._without_key()
        text = self._text(kind)
        return question(key=text, publication=self._keyed).SerializeToString()

    def _text(self, kind: float) -> str:
        live, dead = self._texts.live_texts, self._texts.dead
        if kind < 0.25:
            never = mint(new_id(self._rng.randrange(4096), self._rng.randbytes), self._secrets, self._rng.randbytes)
            return never.reveal()
        if kind < 0.30:
            return f"tk_{self._rng.randbytes(36).hex()}"
        if kind < 0.35 and dead:
            return dead[self._rng.randrange(len(dead))]
        return self._rng.choice(live) if live else "none yet"

    def _without_key(self) -> bytes:
        address = ".".join(str(byte) for byte in self._rng.randbytes(4))
        return question(publication=self._opened, headers={_ADDRESS: address}).SerializeToString()


def total(callers: Sequence[Caller]) -> Counter[str]:
    """All answers by status."""
    return sum((caller.answers for caller in callers), Counter())
