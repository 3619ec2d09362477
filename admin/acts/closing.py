"""Closing a host's table: the places and routes that take its entries, and back. Pure.

While a host has its table, that is what counts, and places and routes beside it may be anything. So they are written in
as many commits as it takes, each of which holds the table's version, and the last one takes the table away by the same
version: what a reader finds then is what the table said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import structs

from admin.acts import hosts
from admin.acts.hosts import entered
from catalog.changes import Change, Check, Delete, Put
from catalog.damage import CorruptRecord
from catalog.records import HostRecord, Kind, PlaceRecord, PublicationRecord, RouteRecord
from catalog.routes import place_id, route_id

CHUNK: Final = 100
"""Records of one commit: the store does nothing else meanwhile."""

Stored = Mapping[str, PlaceRecord | RouteRecord | CorruptRecord]
"""What there is of a host's places and routes, by id."""


Published = Mapping[str, PublicationRecord]
"""The publications of a table, by uid."""


def places_of(table: HostRecord, published: Published) -> dict[str, PlaceRecord]:
    """The places that a table comes to; that of no publication goes."""
    return {
        place_id(table.id, path): PlaceRecord(place_id(table.id, path), published[uid].tenant, uid)
        for path, uid in (table.paths or {}).items()
        if uid in published
    }


def routes_of(table: HostRecord, published: Published) -> dict[str, RouteRecord]:
    """The routes likewise, and those of names that the release before did not write into tables: what paths say."""
    routes = [(route_id(table.id, *name.split("/", 1)), uid) for name, uid in (table.models or {}).items()]
    said = [(name, uid) for uid in (table.paths or {}).values() if uid in published for name in _said(published[uid])]
    return {name: RouteRecord(name, uid) for name, uid in (*said, *routes) if uid in published}


def _said(publication: PublicationRecord) -> Iterable[str]:
    return hosts.routes_of(publication) if publication.is_said_by_path else ()


def commits(
    table: HostRecord, kind: Kind, wanted: Mapping[str, PlaceRecord | RouteRecord], stored: Stored
) -> Iterator[Sequence[Change]]:
    """Yield the commits that make what is stored what is wanted, while the table is as it is."""
    held = Check(Kind.HOST, table.id, table.version, table.created_at_ms)
    for chunk in _chunks([*_changes(kind, wanted, stored)]):
        yield [held, *chunk]


def _chunks(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    return (changes[start : start + CHUNK] for start in range(0, len(changes), CHUNK))


def _changes(kind: Kind, wanted: Mapping[str, PlaceRecord | RouteRecord], stored: Stored) -> Iterator[Change]:
    for name, record in wanted.items():
        found = stored.get(name)
        if found is None:
            yield Put(record, 0)
        elif isinstance(found, CorruptRecord):
            removal = found.removal()
            yield Put(record, removal.expected_version, removal.stored)
        elif structs.replace(record, version=found.version, created_at_ms=found.created_at_ms) != found:
            yield Put(structs.replace(record, created_at_ms=found.created_at_ms), found.version)
    for name, found in stored.items():
        if name not in wanted:
            yield found.removal() if isinstance(found, CorruptRecord) else Delete(kind, name, found.version)


def closed(table: HostRecord) -> Put:
    """Take the table away; everything it said must stand in places and routes."""
    return Put(structs.replace(table, paths=None, models=None), table.version)


def opening(host: HostRecord) -> Put:
    """Let nobody publish on a closed host until its table is made: routes serve meanwhile."""
    return Put(structs.replace(host, paths={}, models=None), host.version)


def opened(host: HostRecord, publications: Iterable[PublicationRecord]) -> Put | Delete:
    """Give a host its table back, which counts from then on; a host without publications goes."""
    table = structs.replace(host, paths={}, models={})
    for one in publications:
        table = entered(table, one)
    return Put(table, host.version) if table.paths else Delete(Kind.HOST, host.id, host.version)
