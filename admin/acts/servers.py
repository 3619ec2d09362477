"""Who may reach a model server: what a publication enters into its server's record and takes back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import structs

from catalog.changes import Change, Delete, Put
from catalog.records import Kind, PublicationRecord, ServerRecord, server_of, servers_of, sole_caller


@dataclass(frozen=True, slots=True)
class Standing:
    """A server's record as it is stored, or as it has to be where none is that can be read."""

    record: ServerRecord
    expected_version: int  # of the stored one; 0: there is none; CORRUPT: it cannot be read
    stored: str = ""  # with CORRUPT, the digest of what is stored


def names_of(publication: PublicationRecord) -> frozenset[str]:
    """The ids of the records of all servers that a publication leads to."""
    return frozenset(filter(None, (server_of(one.url) for one in servers_of(publication))))


def made_of(server: str, publications: Iterable[PublicationRecord], now_ms: int) -> ServerRecord:
    """Make a server's record of all that is published."""
    callers = {one.uid: sole_caller(one) for one in publications if server in names_of(one)}
    return ServerRecord(server, callers, created_at_ms=now_ms)


def claim(standing: Standing, publication: PublicationRecord) -> Change:
    """Enter a publication in place of whatever entry it had."""
    callers = {**standing.record.callers, publication.uid: sole_caller(publication)}
    return Put(structs.replace(standing.record, callers=callers), standing.expected_version, standing.stored)


def release(standing: Standing, uid: str) -> Change | None:
    """Take a publication out; a record without entries goes. ``None`` where there is nothing to be done."""
    callers = {other: tenant for other, tenant in standing.record.callers.items() if other != uid}
    if callers:
        return Put(structs.replace(standing.record, callers=callers), standing.expected_version, standing.stored)
    if standing.expected_version == 0:
        return None
    return Delete(Kind.SERVER, standing.record.id, standing.expected_version, stored=standing.stored)


def moved(old: PublicationRecord, new: PublicationRecord, standings: Iterable[Standing]) -> list[Change]:
    """The changes of a publication whose servers or callers may be others now, or that stands in no record yet.

    ``standings``: of the servers of both.
    """
    changes: list[Change] = []
    before, now = names_of(old), names_of(new)
    for standing in standings:
        server = standing.record.id
        if server in now:
            if standing.expected_version <= 0 or standing.record.callers.get(new.uid) != sole_caller(new):
                changes.append(claim(standing, new))
        elif server in before and (change := release(standing, old.uid)) is not None:
            changes.append(change)
    return changes
