"""How a batch comes by the records of its calls: read together, gone on with as they come, all of one epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from catalog.keys.keytext import KeyText, ParsedKey
from catalog.records import Credential, KeyRecord, ModelType, Protocol, PublicationRecord, TenantRecord
from catalog.store.reader import Snapshot
from extauth.facts import named_by
from extauth.records.cache import RecordCache
from extauth.records.gathering import Gathered, Gatherer, Question
from extauth.request.call import Call
from tests.support.decisionworld import World

CALL = Call("tk", "", "uid", "", "POST")
PUBLICATION = PublicationRecord(
    uid="uid",
    tenant="tenant-a",
    model="m",
    url="",
    type=ModelType.TRADITIONAL,
    protocol=Protocol.KSERVE_V1,
    host="h",
    path="/models/m",
    limits=TenantRecord("", 0, 0, 0).limits,
    require_api_key=True,
    allowed_tenants=("tenant-a",),
    key_id="",
    created_at_ms=0,
    updated_at_ms=0,
)
KEYS = [
    KeyRecord(f"k{number}", tenant, "", ("uid",), Credential("", (1,)), 0, 0)
    for number, tenant in enumerate(("tenant-a", "tenant-b", "tenant-b"))
]


class Watched(World):
    """A world that notes what is read of it, and what happens before a read."""

    def __init__(self) -> None:
        super().__init__()
        self.put(PUBLICATION, *KEYS, *(TenantRecord(name, 0, 0, 0) for name in ("tenant-a", "tenant-b")))
        self.reads: list[set[str]] = []
        self.before_read: list[Callable[[], None]] = []

    def read(self, execute: Any, refs: Sequence[str]) -> Snapshot:
        """Read, after what happens before it."""
        if self.before_read:
            self.before_read.pop(0)()
        self.reads.append(set(refs))
        return super().read(execute, refs)


def gather(world: World, cache: RecordCache) -> Gathered:
    """The facts of a call of each key."""
    question = Question()
    for index, key in enumerate(KEYS):
        presented = ParsedKey(key.id, KeyText("tk"))
        question.note(index, CALL, presented, named_by(CALL, presented))
    return Gatherer(cache, world).gather(question, range(len(KEYS)), lambda *_command: None)


def test_a_batch_reads_what_it_lacks_together_and_only_once() -> None:
    """First what its calls name, then what those records name; nothing the second time."""
    world, cache = Watched(), RecordCache()
    cache.reset(world.epoch)
    gathered = gather(world, cache)
    assert world.reads == [{"pub:uid", "key:k0", "key:k1", "key:k2"}, {"tenant:tenant-a", "tenant:tenant-b"}]
    assert gathered.epoch == world.epoch
    assert [known.tenant.record.id for known in gathered.facts.values() if known.tenant] == [key.tenant for key in KEYS]
    assert all(known.publication and known.owner for known in gathered.facts.values())
    assert gather(world, cache).facts.keys() == {0, 1, 2}
    assert len(world.reads) == 2


def test_what_is_read_at_another_epoch_is_not_put_beside_what_was_found_before() -> None:
    """A change between two reads of a batch: its facts are all of the epoch after it, the changed record's too."""
    world, cache = Watched(), RecordCache()
    cache.reset(world.epoch)

    def change() -> None:
        seen = world.epoch
        world.put(KeyRecord("k0", "tenant-b", "", ("uid",), Credential("", (1,)), 0, 0, version=2))
        cache.advance(seen, world.epoch, ["key:k0"])  # as the feed's follower may, at any moment

    world.before_read = [lambda: None, change]
    gathered = gather(world, cache)
    assert gathered.epoch == world.epoch == cache.epoch
    assert gathered.facts[0].key is not None
    assert gathered.facts[0].key.tenant == "tenant-b"
    assert gathered.facts[0].tenant is not None
    assert gathered.facts[0].tenant.record.id == "tenant-b"
