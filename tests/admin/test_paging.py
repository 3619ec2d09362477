"""Pages of lists: nothing twice, nothing left out, a bounded look, whatever is added and removed meanwhile."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin import paging
from admin.callers import Caller
from catalog.records import Kind, Role, TenantRecord
from catalog.store import PAGE

NAMES: Final = [f"t{number:02}" for number in range(24)]
ALL: Final = frozenset(NAMES)


@dataclasses.dataclass
class Shelf:
    """A store of tenants in memory that answers as the true one does (its own tests prove that one)."""

    names: set[str]
    looked_at: int = 0

    async def ids(self, kind: Kind, *, after: str, prefix: str, limit: int) -> list[str]:
        assert kind is Kind.TENANT
        found = sorted(name for name in self.names if name > after and name.startswith(prefix))[:limit]
        self.looked_at += len(found)
        return found

    async def get_many(self, kind: Kind, ids: list[str]) -> dict[str, TenantRecord]:
        assert kind is Kind.TENANT
        return {name: TenantRecord(name, 0, 0, 0) for name in ids if name in self.names}


def _run(coroutine: Any) -> Any:
    """Run what awaits nothing real."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


CHANGES = st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=8)


@given(st.sets(st.sampled_from(NAMES)), CHANGES, st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_pages_repeat_nothing_and_hide_nothing(
    there: set[str], changes: list[Any], limit: int, read_at_once: int, scanned: int
) -> None:
    """What is there throughout and may be shown is on exactly one page, in order, whatever comes and goes between."""
    shelf, kept = Shelf(set(there)), {name for name in NAMES if int(name[1:]) % 3}
    throughout, shown, cursor, left = set(there), [], "", iter(changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "PAGE", read_at_once)
        patch.setattr(paging, "MAX_SCANNED", scanned)
        while True:
            query = {"limit": str(limit), "cursor": cursor}
            page = _run(paging.page(shelf, Kind.TENANT, TenantRecord, query, lambda one: one.id in kept))  # type: ignore[arg-type]
            assert len(page.records) <= limit
            shown += [one.id for one in page.records]
            if page.next is None:
                break
            assert page.next > cursor
            cursor = page.next
            added, removed = next(left, (set(), set()))
            shelf.names = (shelf.names | added) - removed
            throughout -= removed
    assert shown == sorted(set(shown))
    assert throughout & kept <= set(shown) <= kept


def test_a_list_that_shows_little_looks_at_a_bounded_number() -> None:
    """Where nearly nothing may be shown, a request ends after its share of ids and says where to go on."""
    shelf = Shelf({f"t{number:05}" for number in range(3 * paging.MAX_SCANNED)})
    page = _run(paging.page(shelf, Kind.TENANT, TenantRecord, {}, lambda _one: False))  # type: ignore[arg-type]
    assert page.records == []
    assert page.next is not None
    assert shelf.looked_at <= paging.MAX_SCANNED + PAGE


async def test_the_true_store_pages_beneath_a_beginning(api: Any) -> None:
    """Ids after a cursor and beneath a beginning; a cursor before or after the beginning's own ids does no harm."""
    for name in ("aa", "ab", "b", "ba", "bb", "c"):
        await api.tenant(name)
    store = api.services.store
    assert await store.ids(Kind.TENANT, prefix="b") == ["b", "ba", "bb"]
    assert await store.ids(Kind.TENANT, prefix="b", after="ba") == ["bb"]
    assert await store.ids(Kind.TENANT, prefix="b", after="b") == ["ba", "bb"]
    assert await store.ids(Kind.TENANT, prefix="b", after="aa") == ["b", "ba", "bb"]
    assert await store.ids(Kind.TENANT, prefix="b", after="c") == []
    assert await store.ids(Kind.TENANT, after="bb") == ["c", "tenant-a", "tenant-b"]
    assert await store.ids(Kind.TENANT, prefix="b", limit=1) == ["b"]


def test_a_caller_of_some_tenants_looks_at_their_shards_only() -> None:
    """Ids of keys and publications begin with their tenant's shard, those of models with its name."""
    some = Caller("u", Role.OPERATOR, frozenset({"tenant-b", "tenant-a"}))
    assert paging.models_beneath(some, None) == ("tenant-a/", "tenant-b/")
    assert paging.models_beneath(some, "tenant-b") == ("tenant-b/",)
    shards = paging.shards_of(some, None)
    assert list(shards) == sorted(shards)
    assert set(shards) == {*paging.shards_of(some, "tenant-a"), *paging.shards_of(some, "tenant-b")}
    assert paging.shards_of(Caller("u", Role.ADMIN, frozenset({"*"})), None) == paging.EVERYTHING
