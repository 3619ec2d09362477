"""Pages of lists: nothing twice, nothing left out, a bounded look, whatever is added and removed meanwhile."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.http import paging
from admin.people.callers import Caller
from catalog.damage import CorruptRecord
from catalog.ids import shard_of
from catalog.records import Kind, Role, TenantRecord
from catalog.store.store import PAGE

NAMES: Final = [f"t{number:02}" for number in range(24)]
ADMIN: Final = Caller("a", Role.ADMIN, frozenset({"*"}))
SOMEBODY: Final = Caller("u", Role.OPERATOR, frozenset({"*"}))
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

    async def read_page(self, kind: Kind, ids: list[str]) -> dict[str, TenantRecord | CorruptRecord]:
        assert kind is Kind.TENANT
        return {name: TenantRecord(name, 0, 0, 0) if name[-1] != "7" else damaged(name) for name in ids}


def damaged(name: str) -> CorruptRecord:
    """A tenant that cannot be read."""
    return CorruptRecord(f"tenant:{name}", b"{")


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
    shelf, kept = Shelf(set(there)), {name for name in NAMES if int(name[1:]) % 3 or name[-1] == "7"}
    throughout, shown, cursor, left = set(there), [], "", iter(changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "PAGE", read_at_once)
        patch.setattr(paging, "MAX_SCANNED", scanned)
        while True:
            query = {"limit": str(limit), "cursor": cursor}
            page = _run(paging.page(shelf, Kind.TENANT, TenantRecord, query, lambda one: one.id in kept, caller=ADMIN))  # type: ignore[arg-type]
            assert len(page.records) + len(page.damaged) <= limit
            shown += sorted(one.id for one in (*page.records, *page.damaged))
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
    page = _run(paging.page(shelf, Kind.TENANT, TenantRecord, {}, lambda _one: False, caller=SOMEBODY))  # type: ignore[arg-type]
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


def test_a_caller_of_some_tenants_looks_at_their_groups_only() -> None:
    """Keys and publications are found in the groups of their tenants, in the order of shards; models by their name."""
    some = Caller("u", Role.OPERATOR, frozenset({"tenant-b", "tenant-a"}))
    assert paging.models_beneath(some, None) == ("tenant-a/", "tenant-b/")
    assert paging.models_beneath(some, "tenant-b") == ("tenant-b/",)
    (both,) = paging.tenants_beneath(some, None)
    assert sorted(both) == ["tenant-a", "tenant-b"]
    assert paging.tenants_beneath(some, "tenant-b") == (("tenant-b",),)
    assert paging.tenants_beneath(ADMIN, None) == paging.EVERYTHING
    assert paging.tenants_beneath(ADMIN, "no tenant's name") == ()


def test_a_shard_is_in_one_section() -> None:
    """However many tenants: sections of some at a time, every shard in one, so that what they give is in order."""
    sections = paging.groups_of(f"tenant-{number}" for number in range(5_000))
    shards = [[shard_of(name) for name in section] for section in sections]
    assert [one for section in shards for one in section] == sorted(one for section in shards for one in section)
    assert all(before[-1] < after[0] for before, after in pairwise(shards))
    assert max(map(len, sections)) <= 2 * paging.GROUPS_AT_ONCE


def test_a_tenant_that_cannot_be_read_is_told_to_admins_only() -> None:
    """Whose a damaged record was is lost, so it is nobody else's."""
    shelf = Shelf({"t07", "t08"})
    for caller, told in ((ADMIN, ["t07"]), (SOMEBODY, [])):
        page = _run(paging.page(shelf, Kind.TENANT, TenantRecord, {}, lambda _: True, caller=caller))  # type: ignore[arg-type]
        assert ([one.id for one in page.records], [one.id for one in page.damaged]) == (["t08"], told)
