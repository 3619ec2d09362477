"""The table of lanes: what it keeps, for how long, and how much memory that is."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc

import pytest

from catalog.ids import new_id
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import (
    Credential,
    KeyRecord,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    TenantRecord,
)
from extauth.decide import Admission
from extauth.lanes.lane import Lane, lane_of
from extauth.lanes.table import IDLE_MS, LaneTable
from extauth.records.cache import RecordCache
from extauth.records.entries import KeyEntry, PublicationEntry, TenantEntry, _ready_subject, entry_of
from ratelimit.windows.budgets import Charge, Draw

LIMITS = Limits(10, 100, 5_000, 100_000)
MANY = 2_000


def publication() -> PublicationEntry:
    """One of a name of usual length."""
    uid = new_id(1, os.urandom)
    entry = entry_of(
        PublicationRecord(
            uid, "tenant-a", "some-model", "http://model.models:80", ModelType.TRADITIONAL, Protocol.KSERVE_V1,
            "api.example", "/models/some-model", LIMITS, require_api_key=True, allowed_tenants=("tenant-a",),
            key_id="", created_at_ms=0, updated_at_ms=0,
        )
    )  # fmt: skip
    assert isinstance(entry, PublicationEntry)
    return entry


def tenant() -> TenantEntry:
    """With limits of its own."""
    entry = entry_of(TenantRecord("tenant-a", 1, 0, 0, limits=LIMITS))
    assert isinstance(entry, TenantEntry)
    return entry


def lane(of: PublicationEntry, caller: TenantEntry) -> Lane:
    """The lane of a new key, as deciding makes it."""
    key_id = new_id(1, os.urandom)
    record = KeyRecord(key_id, "tenant-a", "n", (of.id,), Credential("h" * 44, (1,)), 0, 0, limits=LIMITS)
    key = entry_of(record)
    assert isinstance(key, KeyEntry)
    charge = Charge(
        (key.subject, caller.subject, of.subject),
        refs=(key.ref, caller.ref, of.ref),
        usage=(key.subject.name, of.subject.name),
    )
    return lane_of(Admission(key, caller, of, Draw(charge)))


class Clock:
    """Time that is told."""

    now_ms = 1_000.0

    def __call__(self) -> float:
        """Milliseconds."""
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """A clock to be moved."""
    return Clock()


def keep(table: LaneTable, one: Lane) -> bytes:
    """Keep a lane under a name of its own, as of the beginning."""
    name = os.urandom(16)
    table.keep(name, one, epoch="", era=0)
    return name


def test_lanes_are_bounded_over_all_keys_and_models() -> None:
    """However many keys call however many models, all lanes together take what was said they may, and no more."""
    of, caller = [publication() for _ in range(20)], tenant()
    most = MANY * 2_500
    gc.collect()
    tracemalloc.start()
    try:
        table = LaneTable(RecordCache(), max_bytes=most)
        for number in range(3 * MANY):
            keep(table, lane(of[number % 20], caller))
        _ready_subject.cache_clear()  # bounded by itself
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most * 0.98 < table.size_bytes <= most
    assert 0.7 * table.size_bytes < taken < 1.02 * table.size_bytes


def test_what_is_used_stays_and_what_is_not_goes(clock: Clock) -> None:
    """A lane in use stays however many others come by; beyond the bound goes the one that was used least lately."""
    of, caller = publication(), tenant()
    table = LaneTable(RecordCache(), max_bytes=20 * lane(of, caller).size_bytes, clock_ms=clock)
    hot = keep(table, lane(of, caller))
    names = []
    for _ in range(100):
        names.append(keep(table, lane(of, caller)))
        assert table.find(hot, 0) is not None
    assert [name for name in names if table.find(name, 0)] == names[-19:]
    assert len(table._marks) == 20 + 2


def test_what_nobody_uses_is_given_back(clock: Clock) -> None:
    """After ten minutes, a few with each batch; what is used meanwhile stays."""
    of, caller, cache = publication(), tenant(), RecordCache()
    table = LaneTable(cache, clock_ms=clock)
    table.begin()
    hot = keep(table, lane(of, caller))
    for _ in range(100):
        keep(table, lane(of, caller))
    clock.now_ms += IDLE_MS - 1
    table.begin()
    assert table.find(hot, 0) is not None
    assert len(table) == 101
    clock.now_ms += 1
    for _ in range(10):
        before = len(table)
        table.begin()
        assert before - len(table) <= 16
    assert len(table) == 1
    assert table.size_bytes == lane(of, caller).size_bytes
    assert len(cache.marks) == 3


def test_a_reset_voids_all_at_once_and_gives_back_piece_by_piece() -> None:
    """It takes no longer for many; nothing of before is found; the memory comes back with the batches that follow."""
    of, caller, cache = publication(), tenant(), RecordCache()
    table = LaneTable(cache)
    table.begin()
    names = [keep(table, lane(of, caller)) for _ in range(MANY)]
    before = time.thread_time()
    cache.reset("1-a")
    assert time.thread_time() - before < 0.002
    assert not any(table.find(name, 0) for name in names[::-17])
    fresh = lane(of, caller)
    assert table.keep(b"new", fresh, epoch="1-a", era=0)
    for _ in range(MANY // 16 + 1):
        table.begin()
    assert len(table) == 1
    assert table.find(b"new", 0) is fresh
    assert len(cache.marks) == 3


@pytest.mark.parametrize("changed", ["tenant:tenant-a", "pub"])
def test_a_change_voids_all_that_rests_on_it_at_once(changed: str) -> None:
    """However many keys a tenant has; the lanes of others stand."""
    of, other, caller, cache = publication(), publication(), tenant(), RecordCache()
    table = LaneTable(cache)
    names = [keep(table, lane(of, caller)) for _ in range(MANY)]
    others = [keep(table, lane(other, caller)) for _ in range(10)]
    before = time.thread_time()
    cache.advance("", "1-a", [of.ref if changed == "pub" else changed])
    assert time.thread_time() - before < 0.002
    assert not any(table.find(name, 0) for name in names)
    assert sum(table.find(name, 0) is not None for name in others) == (10 if changed == "pub" else 0)


def test_a_key_text_is_not_kept(secrets: Secrets) -> None:
    """Neither it nor a hash that somebody else could compute stands in the table."""
    cache = RecordCache()
    tables = [LaneTable(cache), LaneTable(cache)]
    text = mint(new_id(1, os.urandom), secrets, os.urandom).reveal()
    names = [table.name(f"puid\0k{text}") for table in tables]
    assert names[0] != names[1]
    assert names[0] == tables[0].name(f"puid\0k{text}")
    assert len(names[0]) == 16
    for table in tables:
        assert len({table.name(said) for said in (f"puid\0k{text}", f"puid\0a{text}", f"huid\0k{text}")}) == 3


def test_only_what_was_decided_now_and_by_the_secrets_of_now_is_kept() -> None:
    """A lane of another epoch or era is refused; ``forget`` voids what is there."""
    of, caller, cache = publication(), tenant(), RecordCache()
    table = LaneTable(cache)
    assert not table.keep(b"a", lane(of, caller), epoch="1-a", era=0)
    assert table.keep(b"a", lane(of, caller), epoch="", era=0)
    table.forget()
    assert table.find(b"a", 0) is None
    assert not table.keep(b"a", lane(of, caller), epoch="", era=0)
    assert table.keep(b"a", lane(of, caller), epoch="", era=table.era)
