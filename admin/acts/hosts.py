"""Hosts: what a publication claims of one and gives back. Pure.

A host's record has the table of what is published there, or it is closed: then each path is a place and each name that
callers say for a model a route, records of their own, and the commit itself holds that nobody else's path overlaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from admin.http.problems import Code, Fault, Problem, Rule
from admin.models.places import above, obstacle, without
from catalog.changes import Below, Change, Check, Delete, Put
from catalog.records import HostRecord, Kind, PlaceRecord, PublicationRecord, RouteRecord
from catalog.routes import below, place_id, route_id

MAX_PUBLICATIONS: Final = 10_000
"""Most publications of one host."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is stored of a host, as far as one publication stands there or wants to."""

    host: str
    record: HostRecord | None  # None: nothing is published there
    places: Mapping[str, PlaceRecord] = field(default_factory=dict)  # by path, of a closed host: its own, those above
    routes: Mapping[str, RouteRecord] = field(default_factory=dict)  # by id, of a closed host: of its model's names
    gone: frozenset[str] = frozenset()  # uids that those routes or the table name, of publications that are no more
    publications: int = 0  # there are on the host


def claim(site: Site, publication: PublicationRecord) -> list[Change]:
    """Give a publication its path and its model's name on its host, in place of whatever it had there."""
    if site.record is not None and site.record.is_closed:
        return [_held(site.record), *_claimed_place(site, publication), *_routes(site, publication)]
    made = HostRecord(publication.host, {}, {}, version=0, created_at_ms=publication.updated_at_ms)
    table = site.record or made
    return [Put(entered(table, publication), table.version)]


def _held(record: HostRecord) -> Check:
    """Whatever is written beside a closed host's record holds only as long as it is closed."""
    return Check(Kind.HOST, record.id, record.version, record.created_at_ms)


def _claimed_place(site: Site, publication: PublicationRecord) -> Iterator[Change]:
    host, path, tenant = publication.host, publication.path, publication.tenant
    own = {place for place, record in site.places.items() if record.publication == publication.uid}
    yield from (_gone(site.places[place]) for place in own if place != path)
    if path in own:
        return
    made = PlaceRecord(place_id(host, path), tenant, publication.uid, created_at_ms=publication.updated_at_ms)
    yield Put(made, 0)
    for upper in above(path):
        if upper not in own:
            yield _as_read(place_id(host, upper), site.places.get(upper))
    yield Below(Kind.PLACE, below(host, path), 0, besides=tenant)
    if not own:
        yield Below(Kind.PLACE, below(host), MAX_PUBLICATIONS - 1)


def _as_read(place: str, record: PlaceRecord | None) -> Check:
    """Hold a place as it was read: one made again is another's perhaps, and may have its version."""
    return Check(Kind.PLACE, place, record.version, record.created_at_ms) if record else Check(Kind.PLACE, place, 0)


def _gone(record: PlaceRecord | RouteRecord) -> Delete:
    kind = Kind.PLACE if isinstance(record, PlaceRecord) else Kind.ROUTE
    return Delete(kind, record.id, record.version, record.created_at_ms)


def _routes(site: Site, publication: PublicationRecord) -> Iterator[Change]:
    wanted = routes_of(publication)
    for name in wanted:
        route = site.routes.get(name)
        if route is None:
            yield Put(RouteRecord(name, publication.uid, created_at_ms=publication.updated_at_ms), 0)
        elif route.publication != publication.uid:
            yield Put(structs.replace(route, publication=publication.uid), route.version)
    yield from (_gone(one) for one in _routes_to(site, publication.uid) if one.id not in wanted)


def _routes_to(site: Site, uid: str) -> list[RouteRecord]:
    return [one for one in site.routes.values() if one.publication == uid]


def routes_of(publication: PublicationRecord) -> dict[str, str]:
    """What a publication answers to on its host, by the id of its route: nothing where callers say no name."""
    if not publication.is_said:
        return {}
    return {route_id(publication.host, publication.tenant, name): name for name in publication.names}


def entered(table: HostRecord, publication: PublicationRecord) -> HostRecord:
    """Return a table with the publication in it, in place of whatever entries it had."""
    models = without(table.models or {}, publication.uid)
    if publication.is_said:
        models |= {f"{publication.tenant}/{name}": publication.uid for name in publication.names}
    paths = without(table.paths or {}, publication.uid) | {publication.path: publication.uid}
    return structs.replace(table, paths=paths, models=models)


def release(site: Site, uid: str) -> list[Change]:
    """Take a publication off a host; a host with nothing left goes."""
    record = site.record
    if record is None:
        return []
    if record.is_closed:
        return [*_released(site, record, uid)]
    paths = without(record.paths or {}, uid)
    if not paths:
        return [Delete(Kind.HOST, record.id, record.version)]
    return [Put(structs.replace(record, paths=paths, models=without(record.models or {}, uid)), record.version)]


def _released(site: Site, record: HostRecord, uid: str) -> Iterator[Change]:
    own = [place for place in site.places.values() if place.publication == uid]
    yield from (_gone(place) for place in own)
    yield from map(_gone, _routes_to(site, uid))
    if site.publications > len(own):
        yield _held(record)
    else:
        yield Delete(Kind.HOST, record.id, record.version, record.created_at_ms)
        yield Below(Kind.PLACE, below(record.id), len(own))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What stands at, above and below a path: of a tenant's own publications what is the path itself at least."""

    paths: Mapping[str, str]  # path -> uid
    foreign: frozenset[str]  # uids of other tenants' publications
    seen: Mapping[str, PublicationRecord]  # those that the caller may see, by uid


def require_free(publication: PublicationRecord, near: Neighbours) -> None:
    """Raise ``Problem`` PATH_TAKEN when the publication's path is not its to claim.

    What stands in the way is told where the caller may see it; of any other the three reasons are one.
    """
    paths = without(near.paths, publication.uid)
    if taken := obstacle(publication.path, paths, near.foreign):
        message = _reason(publication.path, taken, near.seen.get(paths[taken]))
        raise Problem(Code.PATH_TAKEN, f"the path {message}", [Fault("config.externalPath", Rule.RESERVED, message)])


def require_room(site: Site, uid: str) -> None:
    """Raise ``Problem`` QUOTA_REACHED where a host has as many publications as one may have.

    One that stands there already needs none, also where a release without the bound let in more.
    """
    paths = site.record.paths if site.record else None
    has_it = any(place.publication == uid for place in site.places.values()) or uid in (paths or {}).values()
    if site.publications >= MAX_PUBLICATIONS and not has_it:
        raise Problem(Code.QUOTA_REACHED, f"a host may have {MAX_PUBLICATIONS:,} publications, as {site.host} has")


def require_names(site: Site, publication: PublicationRecord) -> None:
    """Raise ``Problem`` NAME_TAKEN where callers say one of the publication's names for another of its tenant here."""
    faults = [
        Fault(
            _field_of(publication, name),
            Rule.RESERVED,
            f"is what callers say for another model of {publication.tenant} on this host",
        )
        for route, name in routes_of(publication).items()
        if _holder(site, publication, route, name) not in {"", publication.uid, *site.gone}
    ]
    if faults:
        raise Problem(Code.NAME_TAKEN, "; ".join(f"{one.field} {one.message}" for one in faults), faults)


def _holder(site: Site, publication: PublicationRecord, route: str, name: str) -> str:
    models = site.record.models if site.record else None
    if models is not None:
        return models.get(f"{publication.tenant}/{name}", "")
    return site.routes[route].publication if route in site.routes else ""


def _field_of(publication: PublicationRecord, name: str) -> str:
    """Who gave a model this name: the model's own record, or the config."""
    if name in publication.aliases:
        return f"config.aliases[{publication.aliases.index(name)}]"
    return "name" if name == publication.model else "modelId"


def _reason(path: str, taken: str, owner: PublicationRecord | None) -> str:
    if owner is None:
        return "is taken on this host, or stands above or below another tenant's path"
    whose = f"{owner.tenant}/{owner.model}"
    if path == taken:
        return f"is taken on this host by {whose}"
    return f"stands {'above' if len(path) < len(taken) else 'below'} {taken}, the path of another tenant's {whose}"
