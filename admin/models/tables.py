"""Closing hosts' tables and opening them again, in the store. Each step may be broken off and is done again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from admin.acts import closing
from admin.acts.closing import Stored
from admin.models.sites import readable
from catalog.changes import Change
from catalog.damage import CorruptRecord
from catalog.records import HostRecord, Kind, PlaceRecord, PublicationRecord, RouteRecord
from catalog.routes import below
from catalog.store.store import PAGE, CatalogStore

Commit = Callable[[Sequence[Change], str], Awaitable[object]]
"""Writes changes under an action of the audit stream: ``host.places``, ``host.routes``, and the two below."""

CLOSE: Final = "host.close"
OPEN: Final = "host.open"


async def close(store: CatalogStore, table: HostRecord, commit: Commit) -> bool:
    """Take a host's table away once all it says stands in records of its own.

    Returns False where a publication of it cannot be read: whose its path is nobody can tell. Raises ``Conflict`` where
    the table was changed meanwhile.
    """
    published = await _published(store, [*(table.paths or {}).values()])
    if published is None:
        return False
    for kind, action, wanted in (
        (Kind.PLACE, "host.places", closing.places_of(table, published)),
        (Kind.ROUTE, "host.routes", closing.routes_of(table, published)),
    ):
        for changes in closing.commits(table, kind, wanted, await _stored(store, kind, table.id)):
            await commit(changes, action)
    await commit([closing.closed(table)], CLOSE)
    return True


async def open_again(store: CatalogStore, host: HostRecord, commit: Commit) -> None:
    """Give a closed host its table back, made of the publications that say they stand there."""
    if not host.is_opening:
        mark = closing.opening(host)
        await commit([mark], OPEN)
        host = HostRecord(host.id, {}, None, host.version + 1, host.created_at_ms)
    standing = [one async for one in readable(store, Kind.PUBLICATION, PublicationRecord) if one.host == host.id]
    await commit([closing.opened(host, standing)], OPEN)


async def is_damaged(store: CatalogStore, host: str) -> bool:
    """Whether one of a host's places or routes cannot be read."""
    stored = [*(await _stored(store, Kind.PLACE, host)).values(), *(await _stored(store, Kind.ROUTE, host)).values()]
    return any(isinstance(one, CorruptRecord) for one in stored)


async def _published(store: CatalogStore, uids: Sequence[str]) -> dict[str, PublicationRecord] | None:
    """Those of these publications that there are, by uid; ``None`` where one cannot be read."""
    found: dict[str, PublicationRecord] = {}
    for start in range(0, len(uids), PAGE):
        for uid, one in (await store.read_page(Kind.PUBLICATION, uids[start : start + PAGE])).items():
            if isinstance(one, CorruptRecord):
                return None
            if isinstance(one, PublicationRecord):
                found[uid] = one
    return found


async def _stored(store: CatalogStore, kind: Kind, host: str) -> Stored:
    found: dict[str, PlaceRecord | RouteRecord | CorruptRecord] = {}
    after = ""
    while ids := await store.ids(kind, after=after, prefix=below(host)):
        page = (await store.read_page(kind, ids)).items()
        found |= {name: one for name, one in page if isinstance(one, PlaceRecord | RouteRecord | CorruptRecord)}
        after = ids[-1]
        if len(ids) < PAGE:
            break
    return found
