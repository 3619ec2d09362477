"""What belongs to a tenant: counted by the commits themselves, so that no two at once pass a quota."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
import redis
from msgspec import structs

from catalog.changes import CORRUPT, Audit, Delete, Put, Room
from catalog.records import (
    UNLIMITED,
    Credential,
    KeyRecord,
    Kind,
    ModelType,
    Protocol,
    PublicationRecord,
    Role,
    TenantRecord,
    UserRecord,
)
from catalog.store.store import CatalogStore, NoRoom

TENANT = TenantRecord("tenant-a", shard=0x0A1, created_at_ms=1, updated_at_ms=1)
KEY = KeyRecord("0a1aaaaaaaaaaaaaaaa", "tenant-a", "first", ("0a1bbbbbbbbbbbbbbbb",), Credential("hash", (1,)), 1, 1)
PUBLICATION = PublicationRecord(
    uid="0a1bbbbbbbbbbbbbbbb",
    tenant="tenant-a",
    model="my-model",
    url="http://192.0.2.1",
    type=ModelType.TRADITIONAL,
    protocol=Protocol.HTTP,
    host="api.example",
    path="/models/my-model",
    limits=UNLIMITED,
    require_api_key=True,
    allowed_tenants=("tenant-a", "tenant-b"),
    key_id=KEY.id,
    created_at_ms=1,
    updated_at_ms=1,
)


def _members(store: redis.Redis, group: str) -> list[str]:
    return [raw.decode() for raw in store.zrange(f"tk:index:{group}", 0, -1)]


async def test_a_record_is_counted_for_its_tenants(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """A record stands among those of each of its tenants, and leaves where it changes tenants or goes."""
    user = UserRecord("ann", "hash", Role.VIEWER, ("tenant-a", "tenant-b"), 0, 0)
    await catalog.commit([Put(user, 0), Put(KEY, 0)], audit=audit)
    assert [_members(store, f"user:tenant-{x}") for x in "abc"] == [["ann"], ["ann"], []]
    assert _members(store, f"key:{KEY.tenant}") == [KEY.id]
    moved = structs.replace(user, tenants=("tenant-b", "tenant-c"))
    await catalog.commit([Put(moved, 1)], audit=audit)
    assert [_members(store, f"user:tenant-{x}") for x in "abc"] == [[], ["ann"], ["ann"]]
    await catalog.commit([Delete(Kind.USER, "ann", 2), Delete(Kind.KEY, KEY.id, 1)], audit=audit)
    assert [_members(store, group) for group in ("user:tenant-b", "user:tenant-c", f"key:{KEY.tenant}")] == [[], [], []]


async def test_room_is_held_by_the_commit(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Of many commits at once that each found room, as many are written as there was room for; nothing else is."""
    keys = [structs.replace(KEY, id=f"{KEY.id[:-2]}{n:02}") for n in range(12)]
    room = Room(Kind.KEY, KEY.tenant, 4)
    commits = (catalog.commit([room, Put(key, 0)], audit=audit) for n, key in enumerate(keys))
    done = await asyncio.gather(*commits, return_exceptions=True)
    refused = [one for one in done if isinstance(one, NoRoom)]
    assert (len(refused), {one.found for one in refused}) == (7, {5})
    assert len(_members(store, f"key:{KEY.tenant}")) == len(await catalog.ids(Kind.KEY)) == 5
    assert store.xlen("tk:audit") == 5
    await catalog.commit([Room(Kind.KEY, "another", 0)], audit=audit)


async def test_publications_are_counted_for_those_they_allow(catalog: CatalogStore, audit: Audit) -> None:
    """A tenant that a publication allows is told from one that it does not."""
    await catalog.commit([Put(PUBLICATION, 0)], audit=audit)
    for tenant in PUBLICATION.allowed_tenants:
        with pytest.raises(NoRoom):
            await catalog.commit([Room(Kind.PUBLICATION, tenant, 0, allowed=True)], audit=audit)
    await catalog.commit([Room(Kind.PUBLICATION, "stranger", 0, allowed=True)], audit=audit)


async def test_a_damaged_record_leaves_every_tenant(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Whose a record was that cannot be read any more is not known: removing it takes it from whoever had it."""
    await catalog.commit([Put(TENANT, 0), Put(structs.replace(KEY, tenant=TENANT.id), 0)], audit=audit)
    store.set(f"tk:rec:key:{KEY.id}", b"{")
    await catalog.commit([Delete(Kind.KEY, KEY.id, CORRUPT)], audit=audit)
    assert _members(store, f"key:{TENANT.id}") == []


async def test_a_note_is_written_and_changes_nothing(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """A note stands in the audit stream like any act, and neither epoch nor feed move."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    before = store.get("tk:epoch:{0}"), store.xlen("tk:feed:{0}")
    noted = dataclasses.replace(audit.note, action="login.failed", detail={"address": "192.0.2.1"})
    await catalog.note(noted)
    (entry, _) = await catalog.audit_page()
    assert entry.audit == noted
    assert abs(entry.time_ms - await catalog.now_ms()) < 60_000
    assert (store.get("tk:epoch:{0}"), store.xlen("tk:feed:{0}")) == before
