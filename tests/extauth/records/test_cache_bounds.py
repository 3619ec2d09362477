"""A full cache: what it costs in memory and in pauses, and what leaves it."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from catalog.ids import new_id
from catalog.records import (
    Credential,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    TenantRecord,
    decode,
    encode,
)
from extauth.records.cache import RecordCache
from extauth.records.entries import MAX_ADDRESSES, Entry, KeyEntry, PublicationEntry, _address_subject, entry_of
from runtime.collector import spare_what_lives

ENTRIES = 20_000
MOST_BYTES = 600  # 200,000 of them in 120 MB
LIMITS = Limits(10, 100, 5_000, 100_000)


def stored_key(number: int) -> bytes:
    """A key's record as it is stored; of a publication of its own, which is the dearest."""
    uid, publication = new_id(1, os.urandom), new_id(1, os.urandom)
    credential = Credential(f"{number:043}=", (1,), mac_key=1)
    record = KeyRecord(uid, f"tenant-{number % 1000}", f"key {number}", (publication,), credential, 1, 2, limits=LIMITS)
    return encode(record)


def publication(**fields: object) -> PublicationRecord:
    """Some publication's record."""
    made = PublicationRecord(
        new_id(1, os.urandom), "t", "m", "http://a", ModelType.OPENAI, Protocol.OPENAI, "h", "/p", LIMITS, True, ("t",),
        "key", 1, 1, {"team": "vision"},
    )  # fmt: skip
    return made if not fields else type(made)(**{name: getattr(made, name) for name in made.__struct_fields__} | fields)


def read(raw: bytes) -> Entry:
    """An entry as the gate makes it of what it reads."""
    entry = entry_of(decode(Kind.KEY, raw))
    assert entry is not None
    return entry


@pytest.fixture
def collected() -> Iterator[None]:
    """Begin with nothing young, and put the collector back as ``conftest.py`` has set it."""
    gc.collect()
    yield
    gc.unfreeze()
    spare_what_lives()


@pytest.mark.usefixtures("collected")
def test_a_full_cache_is_small_and_nothing_that_the_collector_looks_at() -> None:
    """A key's entry takes 600 bytes at most, the cache's own tables included, and adds nothing to be walked."""
    stored = [stored_key(number) for number in range(ENTRIES)]
    cache = RecordCache(max_entries=2 * ENTRIES)
    tracked = len(gc.get_objects())
    tracemalloc.start()
    try:
        for raw in stored:
            entry = read(raw)
            cache.insert("", {entry.ref: entry})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    gc.collect()
    assert len(cache) == ENTRIES
    assert len(gc.get_objects()) - tracked < ENTRIES / 20
    assert taken / ENTRIES <= MOST_BYTES


RECORDS = [
    KeyRecord("0a1x", "t", "n", ("p",), Credential("h", (1,)), 1, 1, previous=Credential("g", (1,)), limits=LIMITS),
    TenantRecord("t", 1, 1, 1, limits=LIMITS, hosts=("h",)),
    publication(),
    HostRecord("h", {"/p": "uid"}, {"t/m": "uid"}),
]


@pytest.mark.usefixtures("collected")
def test_what_comes_and_goes_leaves_nothing_to_be_walked() -> None:
    """No collection is due while as much goes as comes, so what is in a full cache must not wait for one."""
    stored = [stored_key(number) for number in range(ENTRIES)]
    cache = RecordCache(max_entries=ENTRIES // 4)
    tracked = len(gc.get_objects())
    for raw in stored:
        entry = read(raw)
        cache.insert("", {entry.ref: entry})
    assert len(gc.get_objects()) - tracked < ENTRIES / 20


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_no_entry_is_walked(record: KeyRecord | TenantRecord | PublicationRecord | HostRecord) -> None:
    """Of no kind of record: neither the entry nor what it is made of."""
    entry = entry_of(record)
    assert not gc.is_tracked(entry)
    assert not gc.is_tracked(record)
    assert not any(gc.is_tracked(part) for part in gc.get_referents(record))


@pytest.mark.usefixtures("collected")
def test_eviction_is_cheap_however_long_it_goes_on() -> None:
    """Each record that comes into a full cache costs the same, and a collection then takes a few milliseconds."""
    cache = RecordCache(max_entries=ENTRIES)
    gc.freeze()
    entry = read(stored_key(0))
    spent: list[float] = []
    for begin in range(0, 10 * ENTRIES, ENTRIES):
        before = time.thread_time()
        for number in range(begin, begin + ENTRIES):
            cache.insert("", {f"key:{number}": entry})
        spent.append(time.thread_time() - before)
    assert len(cache) <= ENTRIES
    assert max(spent[2:]) < 8 * min(spent)
    before = time.thread_time()
    gc.collect()
    assert time.thread_time() - before < 0.1


def test_what_is_used_stays() -> None:
    """A key in use is in the cache however many others come by once: it does not go in its turn."""
    cache = RecordCache(max_entries=ENTRIES)
    hot = {f"key:hot{number}": read(stored_key(number)) for number in range(20)}
    cache.insert("", hot)
    entry = read(stored_key(0))
    for number in range(5 * ENTRIES):
        cache.insert("", {f"key:{number}": entry})
        if number % 500 == 0:
            assert cache.look(hot)[1].keys() == hot.keys()
    assert len(cache) <= ENTRIES
    assert cache.look(hot)[1] == hot


def test_a_reset_forgets_all_at_once_and_waits_for_nothing() -> None:
    """Nothing of before is found after a reset, though its memory is given back part by part."""
    cache = RecordCache(max_entries=ENTRIES)
    names = [f"key:{number}" for number in range(ENTRIES // 2)]
    entry = read(stored_key(0))
    cache.insert("", dict.fromkeys(names, entry))
    before = time.thread_time()
    cache.reset("9-a")
    assert time.thread_time() - before < 0.005
    assert len(cache) == 0
    assert cache.look(names) == ("9-a", {})
    assert not any(part.entries for part in cache._parts)


def test_addresses_are_bounded_over_all_publications() -> None:
    """1,000 publications with many addresses each keep as much as one with very many; one /64 is one entry."""
    _address_subject.cache_clear()
    one = entry_of(publication())
    assert isinstance(one, PublicationEntry)
    subjects = {one.address_subject(f"2001:db8:1:2::{number:x}").name for number in range(5_000)}
    assert subjects == {f"a:{one.id}:2001:db8:1:2::/64"}
    assert _address_subject.cache_info().currsize == 1
    tracemalloc.start()
    try:
        for _ in range(1_000):
            entry = entry_of(publication())
            assert isinstance(entry, PublicationEntry)
            for number in range(50):
                entry.address_subject(f"192.0.2.{number}")
        del entry
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert _address_subject.cache_info().currsize == MAX_ADDRESSES
    assert taken < 16 * 2**20


def test_a_key_keeps_what_is_counted_for_it() -> None:
    """The same subject while it is in use, by the name that its counters have had."""
    entry = read(stored_key(7))
    assert isinstance(entry, KeyEntry)
    assert entry.subject is entry.subject
    assert entry.subject.name == f"k:{entry.id}"
    assert [budget.limit for budget in entry.subject.budgets] == [10, 100, 5_000, 100_000]
