"""Commits on a real Valkey: all or nothing, one winner, a new epoch each time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest
import redis
import redis.asyncio
from msgspec import structs

from catalog.actors import Recordless
from catalog.changes import CORRUPT, Audit, Below, Change, Check, Delete, Put
from catalog.damage import CorruptRecord
from catalog.records import (
    Credential,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    PlaceRecord,
    Record,
    ServerRecord,
    TenantRecord,
    encode,
)
from catalog.store import names
from catalog.store import store as store_module
from catalog.store.health import Health
from catalog.store.layout import ref_of
from catalog.store.store import CatalogStore, Conflict, StoreRefused

TENANT = TenantRecord("tenant-a", shard=0x0A1, created_at_ms=1, updated_at_ms=1)
KEY = KeyRecord(
    id="0a1aaaaaaaaaaaaaaaa",
    tenant="tenant-a",
    name="first",
    publications=("0a1bbbbbbbbbbbbbbbb",),
    current=Credential("hash", (1,)),
    created_at_ms=1,
    updated_at_ms=1,
)


def _dump(store: redis.Redis) -> dict[bytes, bytes | None]:
    """Everything stored, byte for byte."""
    return {key: store.dump(key) for key in store.scan_iter()}


def _entries(store: redis.Redis) -> list[tuple[bytes, dict[bytes, bytes]]]:
    entries: list[tuple[bytes, dict[bytes, bytes]]] = store.xrange(names.feed("0"))  # type: ignore[assignment]
    return entries


# --- what a commit writes --------------------------------------------------------------------------------------------


async def test_a_first_commit_writes_record_index_epoch_and_feed(
    catalog: CatalogStore, store: redis.Redis, audit: Audit
) -> None:
    """The store holds the record as JSON, its id in the index, and an epoch whose feed entry names the record."""
    committed = await catalog.commit([Put(TENANT, 0)], audit=audit)
    assert re.fullmatch("1-[0-9a-f]{16}", committed.epoch)
    assert committed.records == {"tenant:tenant-a": TENANT}
    assert await catalog.get(Kind.TENANT, "tenant-a") == TENANT
    assert await catalog.ids(Kind.TENANT) == ["tenant-a"]
    assert store.get(names.epoch("0")) == committed.epoch.encode()
    assert _entries(store) == [(b"1-0", {b"epoch": committed.epoch.encode(), b"refs": b"tenant:tenant-a"})]
    assert sorted(store.keys()) == [
        b"tk:audit",
        b"tk:epoch:{0}",
        b"tk:feed:{0}",
        b"tk:index:tenant",
        b"tk:rec:tenant:tenant-a",
    ]


async def test_the_store_counts_the_versions(catalog: CatalogStore, audit: Audit) -> None:
    """A record is written as the version after the expected one, whatever its own says."""
    await catalog.commit([Put(structs.replace(TENANT, version=70), 0)], audit=audit)
    changed = structs.replace(TENANT, limits=Limits(burst=5), version=1)
    committed = await catalog.commit([Put(changed, 1)], audit=audit)
    stored = await catalog.get(Kind.TENANT, "tenant-a")
    assert stored == structs.replace(changed, version=2)
    assert committed.records == {"tenant:tenant-a": stored}


async def test_a_delete_leaves_nothing_of_the_record(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Record and index entry go together, and the feed names what went."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    await catalog.commit([Delete(Kind.TENANT, "tenant-a", 1)], audit=audit)
    assert await catalog.get(Kind.TENANT, "tenant-a") is None
    assert await catalog.ids(Kind.TENANT) == []
    assert _entries(store)[-1][1][b"refs"] == b"tenant:tenant-a"


async def test_a_check_guards_without_changing(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """A key is only made while its tenant is as it was read; the tenant itself is not touched nor told as changed."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    await catalog.commit([Check(Kind.TENANT, "tenant-a", 1), Put(KEY, 0)], audit=audit)
    assert await catalog.get(Kind.TENANT, "tenant-a") == TENANT
    assert _entries(store)[-1][1][b"refs"] == f"key:{KEY.id}".encode()
    with pytest.raises(Conflict):
        await catalog.commit([Check(Kind.TENANT, "tenant-a", 2), Delete(Kind.KEY, KEY.id, 1)], audit=audit)
    assert await catalog.get(Kind.KEY, KEY.id) == KEY


async def test_every_commit_makes_a_new_epoch(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Epochs never repeat, count up by one, and the feed has each of them in order."""
    epochs = [(await catalog.commit([], audit=audit)).epoch for _ in range(50)]
    assert [int(epoch.split("-")[0]) for epoch in epochs] == list(range(1, 51))
    assert len({epoch.split("-")[1] for epoch in epochs}) == 50
    assert [(entry_id, fields[b"epoch"]) for entry_id, fields in _entries(store)] == [
        (f"{number}-0".encode(), epoch.encode()) for number, epoch in enumerate(epochs, 1)
    ]


async def test_the_feed_keeps_the_newest_ten_thousand(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """The feed is bounded exactly; the oldest entry goes first."""
    with store.pipeline(transaction=False) as pipe:
        for number in range(1, 10_001):
            pipe.xadd(names.feed("0"), {"epoch": f"{number}-x", "refs": ""}, id=f"{number}-0")
        pipe.execute()
    await catalog.commit([], audit=audit)
    assert (store.xlen(names.feed("0")), _entries(store)[0][0], _entries(store)[-1][0]) == (10_000, b"2-0", b"10001-0")


async def test_usage_is_retired_with_the_commit(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Usage of what is deleted gets its end and its owner in the same step, and not when the commit fails."""
    usage = [f"tk:usage:{{0}}:p:{number}" for number in range(300)]
    for name in usage[1:]:
        store.hset(name, "total", 1)
    store.set(usage[1], "no hash")
    with pytest.raises(Conflict):
        await catalog.commit([Check(Kind.KEY, "k", 1)], audit=audit, forget_usage=usage)
    assert {store.ttl(name) for name in usage[1:]} == {-1}
    await catalog.commit([], audit=audit, forget_usage=usage)
    assert all(396 * 86_400 < store.ttl(name) <= 397 * 86_400 for name in usage[1:])
    assert store.hget(usage[2], "tenant") == audit.tenant.encode()
    assert not store.exists(usage[0])
    assert store.get(f"{usage[0]}:gone") == audit.tenant.encode()
    assert 0 < store.ttl(f"{usage[0]}:gone") <= 3600


# --- all or nothing --------------------------------------------------------------------------------------------------

_FAILING = [
    Put(TENANT, 0),
    Put(TENANT, 2),
    Put(HostRecord("new", {}, {}), 1),
    Delete(Kind.TENANT, "tenant-a", 2),
    Delete(Kind.KEY, "nobody", 1),
    Delete(Kind.TENANT, "tenant-a", CORRUPT),
    Check(Kind.TENANT, "tenant-a", 0),
    Check(Kind.KEY, "nobody", 1),
]


@pytest.mark.parametrize("failing", _FAILING, ids=str)
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_one_failed_expectation_writes_nothing(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, failing: store_module.Change, position: int
) -> None:
    """Whichever change fails, first or last, the store is byte for byte what it was: no epoch, no feed, no audit."""
    await catalog.commit([Put(TENANT, 0), Put(KEY, 0)], audit=audit)
    before = _dump(store)
    changes: list[store_module.Change] = [Put(KEY, 1), Put(HostRecord("a-host", {}, {}), 0)]
    changes.insert(position, failing)
    with pytest.raises(Conflict) as caught:
        await catalog.commit(changes, audit=audit)
    assert caught.value.ref == ref_of(failing)
    assert _dump(store) == before


async def test_a_conflict_says_what_was_found(catalog: CatalogStore, audit: Audit) -> None:
    """The caller learns the version in force: 0 where there is no record."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    await catalog.commit([Put(TENANT, 1)], audit=audit)
    for expected, record_id, found in [(1, "tenant-a", 2), (5, "tenant-b", 0)]:
        with pytest.raises(Conflict, match=f"tenant:{record_id}: version {found} found") as caught:
            await catalog.commit([Check(Kind.TENANT, record_id, expected)], audit=audit)
        assert caught.value.found_version == found


async def test_one_of_many_concurrent_rotations_wins(redis_url: str, store: redis.Redis, audit: Audit) -> None:
    """Forty rotations of one key over four clients: one is written, all others learn of it."""
    async with _Catalogs(redis_url, 4) as catalogs:
        await catalogs[0].commit([Put(KEY, 0)], audit=audit)
        rotated = [structs.replace(KEY, current=Credential(f"hash {number}", (1,))) for number in range(40)]
        outcomes = await asyncio.gather(
            *(catalogs[number % 4].commit([Put(key, 1)], audit=audit) for number, key in enumerate(rotated)),
            return_exceptions=True,
        )
        winners = [outcome for outcome in outcomes if not isinstance(outcome, Conflict)]
        (winner,) = winners
        assert isinstance(winner, store_module.Committed)
        assert await catalogs[0].get(Kind.KEY, KEY.id) == winner.records[f"key:{KEY.id}"]
        assert {outcome.found_version for outcome in outcomes if isinstance(outcome, Conflict)} == {2}
        assert len(_entries(store)) == 2


async def test_concurrent_counting_loses_nothing(redis_url: str, audit: Audit) -> None:
    """Read, change, compare-and-set, again on conflict: every one of sixty increments is there at the end."""

    async def increment(catalog: CatalogStore) -> None:
        while True:
            host = await catalog.get(Kind.HOST, "counter")
            assert isinstance(host, HostRecord)
            paths = {"n": str(int(host.paths["n"]) + 1)}
            try:
                await catalog.commit([Put(structs.replace(host, paths=paths), host.version)], audit=audit)
            except Conflict:
                continue
            return

    async with _Catalogs(redis_url, 3) as catalogs:
        await catalogs[0].commit([Put(HostRecord("counter", {"n": "0"}, {}), 0)], audit=audit)
        await asyncio.gather(*(increment(catalogs[number % 3]) for number in range(60)))
        counter = await catalogs[0].get(Kind.HOST, "counter")
    assert isinstance(counter, HostRecord)
    assert (counter.paths["n"], counter.version) == ("60", 61)


class _Catalogs:
    """Several catalogs, each with its own connections."""

    def __init__(self, url: str, number: int) -> None:
        self._clients = [redis.asyncio.Redis.from_url(url) for _ in range(number)]

    async def __aenter__(self) -> list[CatalogStore]:
        return [CatalogStore(client) for client in self._clients]

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()


# --- nonsense --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ([Put(TENANT, 0), Delete(Kind.TENANT, "tenant-a", 1)], "each record once"),
        ([Put(TENANT, -2)], "at least -1"),
        ([Check(Kind.TENANT, "tenant-a", CORRUPT)], "at least 0"),
        ([Delete(Kind.TENANT, "tenant-a", -2)], "at least -1"),
        ([Delete(Kind.TENANT, "", 1)], "1 to 512 bytes"),
        ([Delete(Kind.TENANT, "a b", 1)], "without white space"),
        ([Delete(Kind.TENANT, "a\u2003b", 1)], "without white space"),
        ([Delete(Kind.TENANT, "é" * 257, 1)], "1 to 512 bytes"),
        ([Check(Kind.TENANT, str(number), 0) for number in range(1001)], "at most 1000"),
    ],
)
async def test_nonsense_is_refused_before_it_is_sent(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, changes: Sequence[store_module.Change], rule: str
) -> None:
    """Changes that contradict themselves, or that the feed could not tell, never reach the store."""
    with pytest.raises(ValueError, match=rule):
        await catalog.commit(changes, audit=audit)
    assert store.dbsize() == 0


async def test_long_records_of_no_tenant_are_not_parsed(
    catalog: CatalogStore, store: redis.Redis, audit: Audit
) -> None:
    """Of a host's table or a server's callers the version and the making are read where they stand, and hold."""
    callers = {f"{n:019}": '"version":9,"created_at_ms":9}' for n in range(3)}
    await catalog.commit([Put(ServerRecord("llm:80", callers, created_at_ms=7), 0)], audit=audit)
    await catalog.commit([Put(HostRecord("h", {'/"version":5': "u"}, {}, created_at_ms=7), 0)], audit=audit)
    for _ in range(2):
        for kind, name in ((Kind.SERVER, "llm:80"), (Kind.HOST, "h")):
            found = await catalog.get(kind, name)
            assert isinstance(found, ServerRecord | HostRecord)
            for wrong in (Put(found, found.version + 1), Put(structs.replace(found, created_at_ms=8), found.version)):
                with pytest.raises(Conflict):
                    await catalog.commit([wrong], audit=audit)
            await catalog.commit([Put(found, found.version)], audit=audit)
    text = store.get("tk:rec:host:h")
    for damaged in (text[:-1], text[:-2] + b"x}", text.replace(b'"version":3', b'"version":"x"')):
        store.set("tk:rec:host:h", damaged)
        with pytest.raises(Conflict) as caught:
            await catalog.commit([Delete(Kind.HOST, "h", 3)], audit=audit)
        assert caught.value.found_version == CORRUPT
    store.set("tk:rec:host:h", text + b" ")  # written by hand, and good
    await catalog.commit([Delete(Kind.HOST, "h", 3, created_at_ms=7)], audit=audit)


async def test_a_range_of_ids_holds_a_commit(catalog: CatalogStore, audit: Audit) -> None:
    """So many beneath a beginning, those of one tenant not counted; no other beginning is touched."""

    def place(path: str, tenant: str) -> Put:
        return Put(PlaceRecord(f"h{path}", tenant, "u"), 0)

    await catalog.commit([place("/a/1", "red"), place("/a/2", "red"), place("/ab", "blue")], audit=audit)
    for prefix, besides, count in (("h/a/", "", 2), ("h/a/", "red", 0), ("h/a/", "blue", 2), ("h/", "red", 1)):
        below = Below(Kind.PLACE, prefix, count, besides)
        assert await catalog.count_below(below) == count
        await catalog.commit([below], audit=audit)
        if count:
            with pytest.raises(Conflict) as caught:
                await catalog.commit([Below(Kind.PLACE, prefix, count - 1, besides)], audit=audit)
            assert (caught.value.ref, caught.value.found_version) == (f"below:place:{besides}:{prefix}", count)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", b"{", b"null", b"[1]", b'{"id": "x"}', b'{"version": "x"}', b"\xff"])
async def test_a_damaged_record_can_be_removed(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, damaged: bytes
) -> None:
    """A record that cannot be read conflicts with every write and goes by the one delete meant for it."""
    store.set("tk:rec:tenant:tenant-a", damaged)
    with pytest.raises(CorruptRecord, match="tenant:tenant-a"):
        await catalog.get(Kind.TENANT, "tenant-a")
    with pytest.raises(Conflict) as caught:
        await catalog.commit([Put(TENANT, 0)], audit=audit)
    assert caught.value.found_version == CORRUPT
    await catalog.commit([Delete(Kind.TENANT, "tenant-a", CORRUPT)], audit=audit)
    await catalog.commit([Put(TENANT, 0)], audit=audit)


READS_WELL = [
    b'{"id": "tenant-a", "version": 3}',
    b'{"version": "7", "created_at_ms": 5}',
    encode(structs.replace(TENANT, id="tenant-z", version=4)),  # another record
    encode(structs.replace(TENANT, version=0)),  # what stands for there is none
    encode(structs.replace(TENANT, version=2**60)),  # no double
]


@pytest.mark.parametrize("damaged", READS_WELL)
@pytest.mark.parametrize("is_made_again", [False, True])
async def test_a_damaged_record_whose_version_reads_well_goes_too(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, damaged: bytes, *, is_made_again: bool
) -> None:
    """It is named by what is stored: removed or written over, and a record that somebody mended meanwhile is not."""
    store.set("tk:rec:tenant:tenant-a", damaged)
    with pytest.raises(CorruptRecord) as caught:
        await catalog.get(Kind.TENANT, "tenant-a")
    removal: Change = caught.value.removal()
    if is_made_again:
        removal = Put(TENANT, CORRUPT, caught.value.digest)
    store.set("tk:rec:tenant:tenant-a", encode(TENANT))
    with pytest.raises(Conflict):
        await catalog.commit([removal], audit=audit)
    store.set("tk:rec:tenant:tenant-a", damaged)
    await catalog.commit([removal], audit=audit)
    made = structs.replace(TENANT, version=1) if is_made_again else None
    assert await catalog.get(Kind.TENANT, "tenant-a") == made


async def test_ids_of_some_tenants_are_read_together(catalog: CatalogStore, audit: Audit, store: redis.Redis) -> None:
    """In order, after a cursor, as many as asked for, in one round trip; a group that is no set is a refusal."""
    for name in ("a", "b", "c"):
        keys = [structs.replace(KEY, id=f"{n}{name}", tenant=name) for n in range(3)]
        await catalog.commit([Put(key, 0) for key in keys], audit=audit)
    store.config_resetstat()
    assert await catalog.ids_of(Kind.KEY, ["a", "c"]) == ["0a", "0c", "1a", "1c", "2a", "2c"]
    assert await catalog.ids_of(Kind.KEY, ["c", "a"], after="0a", limit=2) == ["0c", "1a"]
    store.set("tk:index:key:d", "no set")
    with pytest.raises(StoreRefused):
        await catalog.ids_of(Kind.KEY, ["a", "d", "b"])
    assert await catalog.ids_of(Kind.KEY, ["b"]) == ["0b", "1b", "2b"]
    store.delete("tk:index:key:d")


async def test_a_key_of_another_type_is_a_damaged_record(
    catalog: CatalogStore, store: redis.Redis, audit: Audit
) -> None:
    """Whatever stands where a record should, it can be removed."""
    store.lpush("tk:rec:tenant:tenant-a", "x")
    with pytest.raises(CorruptRecord):
        await catalog.get(Kind.TENANT, "tenant-a")
    await catalog.commit([Delete(Kind.TENANT, "tenant-a", CORRUPT)], audit=audit)
    assert store.exists("tk:rec:tenant:tenant-a") == 0


async def test_a_damaged_record_fails_alone(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading many leaves the damaged one out, says so in the log, and quotes nothing of it."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    store.set("tk:rec:tenant:tenant-b", b'{"id": "private matter"}')
    assert await catalog.get_many(Kind.TENANT, ["tenant-b", "tenant-a", "nobody"]) == {"tenant-a": TENANT}
    assert "tenant:tenant-b: the stored record cannot be read" in caplog.text
    assert "private matter" not in caplog.text


@pytest.mark.parametrize("lost", [["tk:epoch:{0}"], ["tk:feed:{0}"], ["tk:epoch:{0}", "tk:feed:{0}"]], ids=str)
async def test_the_counter_goes_on_when_half_of_it_is_lost(
    catalog: CatalogStore, store: redis.Redis, audit: Audit, lost: list[str]
) -> None:
    """With epoch or feed gone the next commit counts on from the other; with both gone it starts anew."""
    before = [(await catalog.commit([], audit=audit)).epoch for _ in range(3)]
    store.delete(*lost)
    after = (await catalog.commit([], audit=audit)).epoch
    assert after not in before
    assert after.startswith("1-" if len(lost) == 2 else "4-")
    assert (await catalog.commit([], audit=audit)).epoch.startswith("2-" if len(lost) == 2 else "5-")


@pytest.mark.parametrize("epoch", ["", "x", "7", "-0", "7-xyz", "1e9-0", "99999-0123456789abcdef"])
async def test_a_damaged_epoch_is_replaced(catalog: CatalogStore, store: redis.Redis, audit: Audit, epoch: str) -> None:
    """Whatever the epoch's key holds, the next commit makes a well-formed epoch and a feed entry for it."""
    await catalog.commit([], audit=audit)
    store.set("tk:epoch:{0}", epoch)
    made = (await catalog.commit([], audit=audit)).epoch
    assert re.fullmatch("[0-9]+-[0-9a-f]{16}", made)
    assert _entries(store)[-1][0] == made.split("-")[0].encode() + b"-0"


async def test_a_feed_that_was_emptied_goes_on_counting(
    catalog: CatalogStore, store: redis.Redis, audit: Audit
) -> None:
    """A trimmed-out feed still knows its last id; with the epoch gone too the next commit counts on from there."""
    for _ in range(3):
        await catalog.commit([], audit=audit)
    store.xtrim("tk:feed:{0}", maxlen=0, approximate=False)
    store.delete("tk:epoch:{0}")
    assert (await catalog.commit([], audit=audit)).epoch.startswith("4-")


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_ids_are_paged_in_order(catalog: CatalogStore, audit: Audit) -> None:
    """Pages follow each other without gap or repetition, also when the last id seen is gone."""
    wanted = sorted(f"host-{number}" for number in range(25))
    await catalog.commit([Put(HostRecord(name, {}, {}), 0) for name in wanted], audit=audit)
    pages: list[list[str]] = [await catalog.ids(Kind.HOST, limit=10)]
    await catalog.commit([Delete(Kind.HOST, pages[0][-1], 1)], audit=audit)
    while page := await catalog.ids(Kind.HOST, after=pages[-1][-1], limit=10):
        pages.append(page)
    assert [name for page in pages for name in page] == wanted
    assert [len(page) for page in pages] == [10, 10, 5]


async def test_many_records_are_read_in_pages(catalog: CatalogStore, audit: Audit) -> None:
    """More than one command's worth comes back whole and in the order asked."""
    hosts: list[Record] = [HostRecord(f"h{number}", {}, {}) for number in range(900)]
    await catalog.commit([Put(host, 0) for host in hosts], audit=audit)
    ids = [host.id for host in reversed(hosts)]
    assert list((await catalog.get_many(Kind.HOST, ids)).items()) == [(h.id, h) for h in reversed(hosts)]
    assert await catalog.get_many(Kind.HOST, []) == {}


async def test_the_clock_is_the_stores(catalog: CatalogStore, store: redis.Redis) -> None:
    """``now_ms`` lies between two TIMEs asked around it."""
    before, now, after = store.time(), await catalog.now_ms(), store.time()
    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000


async def test_audit_entries_are_read_newest_first(catalog: CatalogStore) -> None:
    """Each act is there as it was given, with the store's time, page by page."""
    acts = [
        Audit(Recordless.START, "key.rotate", f"key-{n}", "tenant-a", f"r-{n}", {"ende": "ä\n☃", "n": str(n)})
        for n in range(5)
    ]
    for act in acts:
        await catalog.commit([], audit=act)
    first = await catalog.audit_page(limit=3)
    rest = await catalog.audit_page(before=first[-1].id, limit=3)
    assert [entry.audit for entry in first + rest] == [act.note for act in acts[::-1]]
    assert abs(first[0].time_ms - await catalog.now_ms()) < 60_000
    assert first[0].time_ms >= rest[-1].time_ms


async def test_audit_entries_of_past_years_go(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Entries older than a year are trimmed (by whole nodes of a hundred), younger ones stay."""
    now_ms = await catalog.now_ms()
    with store.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.xadd("tk:audit", {"old": "x"}, id=f"{now_ms - 2 * store_module.AUDIT_AGE_MS + number}-0")
        pipe.xadd("tk:audit", {"young": "x"}, id=f"{now_ms - store_module.AUDIT_AGE_MS + 60_000}-0")
        pipe.execute()
    for _ in range(20):
        await catalog.commit([], audit=audit)
    kept: list[tuple[bytes, dict[bytes, bytes]]] = store.xrange("tk:audit")  # type: ignore[assignment]
    assert sum(b"old" in fields for _, fields in kept) < 200
    assert sum(b"young" in fields for _, fields in kept) == 1
    assert sum(b"actor" in fields for _, fields in kept) == 20


async def test_health_tells_how_the_store_keeps_data(catalog: CatalogStore) -> None:
    """The facts are the store's own; without an append-only file an answer is not durable."""
    health = await catalog.health()
    assert (health.appendonly, health.appendfsync, health.maxmemory_policy) == (False, "everysec", "noeviction")
    assert (health.durable, health.evicts) == (False, False)


async def test_health_is_unknown_where_the_store_hides_it(redis_url: str, store: redis.Redis) -> None:
    """A managed store without CONFIG gives no facts, and that is said instead of guessed."""
    store.acl_setuser("guest", enabled=True, nopass=True, categories=["+@all"], commands=["-config"], keys=["*"])
    try:
        async with redis.asyncio.Redis.from_url(redis_url, username="guest", password="") as client:
            health = await CatalogStore(client).health()
    finally:
        store.acl_deluser("guest")
    assert (health.appendonly, health.durable, health.evicts) == (None, None, None)


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "durable"),
    [(True, "always", True), (True, "everysec", False), (False, "always", False), (None, "always", None)],
)
def test_durable_means_written_before_answered(appendonly: bool | None, appendfsync: str, durable: bool | None) -> None:  # noqa: FBT001
    """Only an append-only file synced at every write keeps what was answered."""
    assert Health(appendonly, appendfsync, "noeviction").durable is durable


@pytest.mark.parametrize(("policy", "evicts"), [("noeviction", False), ("volatile-lru", False), ("allkeys-lru", True)])
def test_policies_that_drop_records_are_named(policy: str, evicts: bool) -> None:  # noqa: FBT001
    """Records have no TTL, so only the allkeys policies drop them."""
    assert Health(appendonly=True, appendfsync="always", maxmemory_policy=policy).evicts is evicts


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_a_refusing_store_ran_nothing(catalog: CatalogStore, store: redis.Redis, audit: Audit) -> None:
    """Out of memory, the store refuses the script before it starts: that is told apart from an unknown outcome."""
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreRefused, match="refused"):
            await catalog.commit([Put(TENANT, 0)], audit=audit)
    finally:
        store.config_set("maxmemory", 0)
    assert store.dbsize() == 0


async def test_a_client_that_decodes_is_as_good(redis_url: str, audit: Audit) -> None:
    """Whatever the client's own settings for replies, protocol and retries, the catalog reads the same."""
    for protocol in (2, 3):
        async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
            catalog = CatalogStore(client)
            await catalog.commit([Put(TENANT, protocol - 2)], audit=audit)
            assert await catalog.get(Kind.TENANT, "tenant-a") == structs.replace(TENANT, version=protocol - 1)
            assert (await catalog.audit_page(limit=1))[0].audit == audit.note
            assert (await catalog.health()).appendfsync == "everysec"


async def test_a_record_made_again_is_not_the_one_that_was_held(catalog: CatalogStore, audit: Audit) -> None:
    """Of the same name and version, born at another time: a check of the one before fails, and so does its removal."""
    await catalog.commit([Put(TENANT, 0)], audit=audit)
    await catalog.commit([Check.of(TENANT)], audit=audit)
    again = structs.replace(TENANT, created_at_ms=TENANT.created_at_ms + 1)
    await catalog.commit([Delete(Kind.TENANT, TENANT.id, 1)], audit=audit)
    await catalog.commit([Put(again, 0)], audit=audit)
    for change in (Check.of(TENANT), Delete(Kind.TENANT, TENANT.id, 1, TENANT.created_at_ms)):
        with pytest.raises(Conflict):
            await catalog.commit([change], audit=audit)
    assert await catalog.get(Kind.TENANT, TENANT.id) == again
