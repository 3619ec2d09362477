"""Reading what is stored of a host around one publication: little, however much is published there.

Of a host whose table is not closed yet it is the whole table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from admin import lookups
from admin.acts.hosts import Neighbours, Site, require_free, require_names, require_room, routes_of
from admin.models.places import above, overlapping, without
from admin.people.callers import Caller
from catalog.changes import Below
from catalog.damage import CorruptRecord
from catalog.records import HostRecord, Kind, PlaceRecord, PublicationRecord, Record, RouteRecord, ref
from catalog.routes import below, path_of, place_id
from catalog.store.store import PAGE, CatalogStore, Conflict

R = TypeVar("R", bound=Record)


async def site_of(store: CatalogStore, publication: PublicationRecord, *more: PublicationRecord) -> Site:
    """Read a publication's host as far as it stands there; ``more``: as it stood before, on the same host perhaps.

    Raises ``CorruptRecord`` where the host's record, or one of a place or route that is wanted, cannot be read, and
    ``Conflict`` while its table is being made.
    """
    host = publication.host
    record = await lookups.host(store, host)
    if record is not None and record.is_opening:
        raise Conflict(ref(Kind.HOST, host), record.version)
    if record is None or not record.is_closed:
        return await _with_gone(
            store, Site(host, record, publications=len(record.paths or {}) if record else 0), publication
        )
    paths = {publication.path, *above(publication.path), *(one.path for one in more if one.host == host)}
    places = await _read(store, Kind.PLACE, PlaceRecord, [place_id(host, path) for path in sorted(paths)])
    named = {name for one in (publication, *more) if one.host == host for name in routes_of(one)}
    routes = await _read(store, Kind.ROUTE, RouteRecord, sorted(named))
    site = Site(
        host,
        record,
        {path_of(host, one.id): one for one in places},
        {one.id: one for one in routes},
        publications=await store.count_below(Below(Kind.PLACE, below(host), 0)),
    )
    return await _with_gone(store, site, publication)


async def _with_gone(store: CatalogStore, site: Site, publication: PublicationRecord) -> Site:
    """Add which of those that have the publication's names are no more: a release before leaves routes behind."""
    models = site.record.models or {} if site.record else {}
    named = {models.get(f"{publication.tenant}/{name}", "") for name in publication.names}
    named |= {one.publication for one in site.routes.values()}
    others = named - {"", publication.uid}
    if not others:
        return site
    known = await store.read_page(Kind.PUBLICATION, sorted(others))
    return replace(site, gone=frozenset(uid for uid, one in known.items() if one is None))


async def publications_on(store: CatalogStore, records: Sequence[HostRecord]) -> dict[str, int]:
    """Count what is published on hosts."""
    counts = {one.id: len(one.paths or {}) for one in records if not one.is_closed}
    closed = [one.id for one in records if one.is_closed]
    counted = await store.counts_below([Below(Kind.PLACE, below(host), 0) for host in closed]) if closed else []
    return counts | dict(zip(closed, counted, strict=True))


async def free_site(
    store: CatalogStore, caller: Caller, publication: PublicationRecord, *more: PublicationRecord
) -> Site:
    """The same where the publication's path is free, and there is room; raises ``Problem`` where not."""
    site = await site_of(store, publication, *more)
    require_free(publication, await _neighbours(store, caller, site, publication))
    require_room(site, publication.uid)
    require_names(site, publication)
    return site


async def _neighbours(store: CatalogStore, caller: Caller, site: Site, publication: PublicationRecord) -> Neighbours:
    if site.record is None:
        return Neighbours({}, frozenset(), {})
    if site.record.is_closed or site.record.paths is None:
        return await _closed_neighbours(store, caller, site, publication)
    paths = without(site.record.paths, publication.uid)
    near = {taken: paths[taken] for taken in overlapping(publication.path, paths)}
    known = await lookups.publications(store, set(near.values()))
    own = {uid for uid, one in known.items() if one.tenant == publication.tenant}
    seen = {uid: one for uid, one in known.items() if caller.sees(one.tenant)}
    return Neighbours(near, frozenset({*near.values()} - own), seen)


async def _closed_neighbours(
    store: CatalogStore, caller: Caller, site: Site, publication: PublicationRecord
) -> Neighbours:
    near = [*site.places.values()]
    if stranger := await _stranger_below(store, publication):
        near.append(stranger)
    foreign = {one.publication for one in near if one.tenant != publication.tenant}
    known = await lookups.publications(store, {one.publication for one in near})
    seen = {uid: one for uid, one in known.items() if caller.sees(one.tenant)}
    return Neighbours({path_of(site.host, one.id): one.publication for one in near}, frozenset(foreign), seen)


async def _stranger_below(store: CatalogStore, publication: PublicationRecord) -> PlaceRecord | None:
    """Find a place of another tenant below the publication's path; most have nothing below them."""
    prefix = below(publication.host, publication.path)
    if not await store.count_below(Below(Kind.PLACE, prefix, 0, besides=publication.tenant)):
        return None
    async for place in all_of(store, Kind.PLACE, PlaceRecord, prefix):
        if place.tenant != publication.tenant:
            return place
    return None


async def all_of(store: CatalogStore, kind: Kind, form: type[R], prefix: str = "") -> AsyncIterator[R]:
    """Yield the records of a kind whose ids begin so; raises ``CorruptRecord`` at one that cannot be read."""
    after = ""
    while ids := await store.ids(kind, after=after, prefix=prefix):
        for one in await _read(store, kind, form, ids):
            yield one
        after = ids[-1]
        if len(ids) < PAGE:
            return


async def sites_with(store: CatalogStore, uid: str) -> list[Site]:
    """Find the hosts that a publication stands on, by its uid alone: all are looked through."""
    tables = [one async for one in readable(store, Kind.HOST, HostRecord) if uid in (one.paths or {}).values()]
    places = [one async for one in readable(store, Kind.PLACE, PlaceRecord) if one.publication == uid]
    routes = [one async for one in readable(store, Kind.ROUTE, RouteRecord) if one.publication == uid]
    sites = [Site(table.id, table) for table in tables]
    for host in sorted({place.id.partition("/")[0] for place in places}):
        record = await lookups.host(store, host)
        own = {path_of(host, one.id): one for one in places if one.id.startswith(below(host))}
        count = await store.count_below(Below(Kind.PLACE, below(host), 0))
        if record is not None and record.is_closed and not record.is_opening:
            here = {one.id: one for one in routes if one.id.startswith(below(host))}
            sites.append(Site(host, record, own, here, publications=count))
    return sites


async def readable(store: CatalogStore, kind: Kind, form: type[R], prefix: str = "") -> AsyncIterator[R]:
    """Yield the records of a kind whose ids begin so, those that can be read, a page at a time."""
    after = ""
    while ids := await store.ids(kind, after=after, prefix=prefix):
        for one in (await store.get_many(kind, ids)).values():
            if isinstance(one, form):
                yield one
        after = ids[-1]
        if len(ids) < PAGE:
            return


async def _read(store: CatalogStore, kind: Kind, form: type[R], ids: Iterable[str]) -> list[R]:
    """Read records; raises ``CorruptRecord`` at one that cannot be."""
    found: list[R] = []
    for one in (await store.read_page(kind, [*ids])).values():
        if isinstance(one, CorruptRecord):
            raise one
        if isinstance(one, form):
            found.append(one)
    return found
