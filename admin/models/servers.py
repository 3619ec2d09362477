"""Reading who may reach a model server. Where no record says so, all publications are asked: once for each server."""

from __future__ import annotations

from admin.acts.servers import Standing, made_of, names_of
from catalog.damage import CorruptRecord
from catalog.records import Kind, PublicationRecord, ServerRecord
from catalog.store.store import PAGE, CatalogStore


async def standings_of(store: CatalogStore, *publications: PublicationRecord) -> list[Standing]:
    """Return what is written of every server that these lead to, each once. Raises ``StoreUnavailable``."""
    named = sorted(frozenset[str]().union(*map(names_of, publications)))
    return [await _standing_of(store, server) for server in named]


async def _standing_of(store: CatalogStore, server: str) -> Standing:
    try:
        found = await store.get(Kind.SERVER, server)
    except CorruptRecord as damaged:
        removal = damaged.removal()
        return Standing(await _made(store, server), removal.expected_version, removal.stored)
    if isinstance(found, ServerRecord):
        return Standing(found, found.version)
    return Standing(await _made(store, server), 0)


async def _made(store: CatalogStore, server: str) -> ServerRecord:
    """Make the record of all publications: those of an earlier release stand in none."""
    published: list[PublicationRecord] = []
    now_ms, after = await store.now_ms(), ""
    while ids := await store.ids(Kind.PUBLICATION, after=after):
        known = (await store.get_many(Kind.PUBLICATION, ids)).values()
        published += [one for one in known if isinstance(one, PublicationRecord) and server in names_of(one)]
        after = ids[-1]
        if len(ids) < PAGE:
            break
    return made_of(server, published, now_ms)
