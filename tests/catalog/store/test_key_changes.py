"""All keys are changed beside others who change keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis.asyncio
from msgspec import structs

from catalog.actors import Recordless
from catalog.changes import Audit, Change, Committed, Put
from catalog.records import Credential, KeyRecord, Kind
from catalog.store.key_changes import PAGE, KeysChangingError, change_keys
from catalog.store.store import CatalogStore, OutcomeUnknown

AUDIT = Audit(Recordless.START, "key.wrap", "all", "", "")
KEYS = [f"0a1key{number:04d}" for number in range(PAGE + 20)]


def _key(key_id: str) -> KeyRecord:
    return KeyRecord(key_id, "tenant-a", "old", (), Credential("hash", (1,)), 0, 0)


def _renamed(key: KeyRecord) -> KeyRecord:
    return structs.replace(key, name="new")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's database, with more keys than a page in it."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await CatalogStore(client).commit([Put(_key(key_id), 0) for key_id in KEYS], audit=AUDIT)
        yield client


async def _names(client: redis.asyncio.Redis) -> set[str]:
    found = await CatalogStore(client).get_many(Kind.KEY, KEYS)
    return {record.name for record in found.values() if isinstance(record, KeyRecord)}


class Troubled(CatalogStore):
    """Before or after its first commits something happens."""

    def __init__(self, client: redis.asyncio.Redis, trouble: str, times: int) -> None:
        super().__init__(client)
        self._trouble = trouble
        self._left = times
        self._client = client

    async def commit(self, changes: Sequence[Change], *, audit: Audit, **more: Any) -> Committed:
        if self._left and self._trouble == "overtaken":
            self._left -= 1
            await self._overtake(changes)
        committed = await super().commit(changes, audit=audit, **more)
        if self._left and self._trouble == "answer lost":
            self._left -= 1
            raise OutcomeUnknown("lost")
        return committed

    async def _overtake(self, changes: Sequence[Change]) -> None:
        """Somebody else limits the last key of the page."""
        last = changes[-1]
        assert isinstance(last, Put)
        now = await self.get(Kind.KEY, last.record.id)
        assert isinstance(now, KeyRecord)
        await super().commit([Put(structs.replace(now, disabled=not now.disabled), now.version)], audit=AUDIT)


async def test_every_key_is_changed_once(client: redis.asyncio.Redis) -> None:
    """Page by page, with progress; a second run finds nothing to do and writes nothing."""
    told = [progress async for progress in change_keys(CatalogStore(client), _renamed, AUDIT)]
    assert [(one.seen, one.changed) for one in told] == [(PAGE, PAGE), (len(KEYS), len(KEYS))]
    assert await _names(client) == {"new"}
    epoch = await client.get("tk:epoch:{0}")
    assert [one.changed async for one in change_keys(CatalogStore(client), _renamed, AUDIT)] == [0, 0]
    assert await client.get("tk:epoch:{0}") == epoch


@pytest.mark.parametrize("trouble", ["overtaken", "answer lost"])
async def test_what_others_change_meanwhile_stays(client: redis.asyncio.Redis, trouble: str) -> None:
    """A page that met somebody's change, or whose answer was lost, is done again on top of it."""
    store = Troubled(client, trouble, times=2)
    async for _ in change_keys(store, _renamed, AUDIT):
        pass
    assert await _names(client) == {"new"}
    versions = {record.version for record in (await store.get_many(Kind.KEY, KEYS)).values()}
    assert versions == ({2} if trouble == "answer lost" else {2, 4})


async def test_a_page_that_never_rests_is_given_up(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded number of tries, then the operator is told."""
    monkeypatch.setattr("catalog.store.key_changes._PAUSE_S", 0)
    with pytest.raises(KeysChangingError, match="run it again"):
        async for _ in change_keys(Troubled(client, "overtaken", times=1_000), _renamed, AUDIT):
            pass
