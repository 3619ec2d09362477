"""Reading who may reach a model server. Where no record says so, all publications are asked: once for each server."""

from __future__ import annotations

from collections.abc import Iterable

from admin.acts.servers import Standing, made_of
from catalog.damage import CorruptRecord
from catalog.records import Kind, PublicationRecord, ServerRecord, server_of
from catalog.store.store import PAGE, CatalogStore


async def standing_of(store: CatalogStore, url: str) -> Standing | None:
    """Return what is written of the server at a URL; ``None`` where the URL names none. Raises ``StoreUnavailable``."""
    server = server_of(url)
    if not server:
        return None
    try:
        found = await store.get(Kind.SERVER, server)
    except CorruptRecord as damaged:
        removal = damaged.removal()
        return Standing(await _made(store, server), removal.expected_version, removal.stored)
    if isinstance(found, ServerRecord):
        return Standing(found, found.version)
    return Standing(await _made(store, server), 0)


async def standings_of(store: CatalogStore, urls: Iterable[str]) -> list[Standing]:
    """The same of the servers at several URLs, each once."""
    found = {server_of(url): await standing_of(store, url) for url in urls}
    return [one for one in found.values() if one is not None]


async def _made(store: CatalogStore, server: str) -> ServerRecord:
    """Make the record of all publications: those of an earlier release stand in none."""
    published: list[PublicationRecord] = []
    now_ms, after = await store.now_ms(), ""
    while ids := await store.ids(Kind.PUBLICATION, after=after):
        known = (await store.get_many(Kind.PUBLICATION, ids)).values()
        published += [one for one in known if isinstance(one, PublicationRecord) and server_of(one.url) == server]
        after = ids[-1]
        if len(ids) < PAGE:
            break
    return made_of(server, published, now_ms)
