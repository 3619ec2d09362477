"""Which records a call needs, and what they say about it once they are there. Pure.

A call names some records itself (its key, its route's publication or host); those name others (the key's tenant, the
publication that the host's table gives, or the record of the model's route where the host has no table, which then
names the publication); and a publication names the tenant whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from catalog.keys.keytext import ParsedKey
from catalog.records import Kind, ModelType, ref, server_of
from catalog.routes import routes_meant
from extauth.decide import Facts, resolve_model
from extauth.listing import model_named
from extauth.reasons import Reason
from extauth.records.entries import Entry, HostEntry, KeyEntry, PublicationEntry, RouteEntry, ServerEntry, TenantEntry
from extauth.request.call import Call
from extauth.request.openai import asks_stored

Presented = ParsedKey | Reason
Entries = Mapping[str, Entry]


class Named(NamedTuple):
    """References of the records that a call itself names; "" of those that it does not."""

    key: str
    publication: str
    host: str  # of a call whose body names the model


def named_by(call: Call, presented: Presented) -> Named:
    """Name them, once a call: they are asked for again and again."""
    key = "" if isinstance(presented, Reason) else ref(Kind.KEY, presented.id)
    if call.publication:
        return Named(key, ref(Kind.PUBLICATION, call.publication), "")
    return Named(key, "", ref(Kind.HOST, call.openai_host) if call.openai_host else "")


def first_refs(named: Named) -> list[str]:
    """Name the records that are read first: of a host only for a call with a key."""
    if not named.key:
        return [named.publication] if named.publication else []
    other = named.publication or named.host
    return [named.key, other] if other else [named.key]


def second_refs(call: Call, named: Named, entries: Entries) -> list[str]:
    """Name the records that the first ones name: the key's tenant, and what the model's name leads to on the host."""
    key = _key(named, entries)
    refs = [ref(Kind.TENANT, key.tenant)] if key else []
    if named.publication:
        return refs
    routes = _route_refs(call, key, entries)
    return [*refs, *routes] if routes else [*refs, *_resolved(call, key, entries)]


def routed_refs(call: Call, named: Named, entries: Entries) -> list[str]:
    """Name the publication to which a route's record leads, once that is here."""
    return [] if named.publication else _resolved(call, _key(named, entries), entries)


def needed_refs(call: Call, named: Named, entries: Entries) -> list[str]:
    """Name every record, of a call whose first ones are here, without which it cannot be decided."""
    names = [*first_refs(named), *second_refs(call, named, entries), *routed_refs(call, named, entries)]
    found = [entries[name] for name in names if name in entries]
    return names + [entry.owner_ref for entry in found if isinstance(entry, PublicationEntry)]


def owner_refs(entries: Entries) -> set[str]:
    """Name the tenants of the publications here, as far as their records are not here too."""
    owners = {entry.owner_ref for entry in entries.values() if isinstance(entry, PublicationEntry)}
    return owners - entries.keys()


def server_ref(call: Call, named: Named, entries: Entries) -> str:
    """Name the record of the server that a call goes to, where it matters who else calls it; "" for most calls."""
    return _server_ref(call, _publication(call, named, entries))


def _server_ref(call: Call, publication: PublicationEntry | None) -> str:
    if publication is None or publication.record.type is not ModelType.OPENAI:
        return ""
    if not asks_stored(call, publication.record):
        return ""
    server = server_of(publication.record.url)
    return ref(Kind.SERVER, server) if server else ""


def _publication(call: Call, named: Named, entries: Entries) -> PublicationEntry | None:
    name = named.publication
    if not name:
        uid = _uid(call, _key(named, entries), entries)
        name = ref(Kind.PUBLICATION, uid) if uid else ""
    entry = entries.get(name)
    if not isinstance(entry, PublicationEntry):
        return None
    is_named_so = bool(named.publication) or call.by_path or entry.record.type is ModelType.OPENAI
    return entry if is_named_so else None  # no body names a model that KServe's paths name


def _uid(call: Call, key: KeyEntry | None, entries: Entries) -> str:
    """The publication that a body-routed call means, "" where there is none, or its route's record is not here."""
    return resolve_model(_host(call, entries), _route(call, key, entries), key, model_named(call))


def _resolved(call: Call, key: KeyEntry | None, entries: Entries) -> list[str]:
    uid = _uid(call, key, entries)
    return [ref(Kind.PUBLICATION, uid)] if uid else []


def _route_refs(call: Call, key: KeyEntry | None, entries: Entries) -> tuple[str, ...]:
    """Name the records of the routes that a call may mean on a host without a table, the one that counts first."""
    host = _host(call, entries)
    if host is None or key is None or not host.record.is_closed:
        return ()
    return tuple([ref(Kind.ROUTE, one) for one in routes_meant(host.record.id, key.tenant, model_named(call))])


def _route(call: Call, key: KeyEntry | None, entries: Entries) -> RouteEntry | None:
    found = (entries.get(name) for name in _route_refs(call, key, entries))
    return next((one for one in found if isinstance(one, RouteEntry)), None)


def facts_of(call: Call, named: Named, entries: Entries) -> Facts:
    """Gather what the records here say about a call."""
    key = _key(named, entries)
    publication = _publication(call, named, entries)
    server_name = _server_ref(call, publication)
    server = entries.get(server_name) if server_name else None
    by_host = not named.publication
    return Facts(
        key=key,
        tenant=_tenant(ref(Kind.TENANT, key.tenant), entries) if key else None,
        publication=publication,
        host=_host(call, entries) if by_host else None,
        routes=_route_refs(call, key, entries) if by_host else (),
        server=server if isinstance(server, ServerEntry) else None,
        owner=_tenant(publication.owner_ref, entries) if publication else None,
    )


def _tenant(name: str, entries: Entries) -> TenantEntry | None:
    entry = entries.get(name)
    return entry if isinstance(entry, TenantEntry) else None


def _key(named: Named, entries: Entries) -> KeyEntry | None:
    entry = entries.get(named.key)
    return entry if isinstance(entry, KeyEntry) else None


def _host(call: Call, entries: Entries) -> HostEntry | None:
    entry = entries.get(ref(Kind.HOST, call.openai_host)) if call.openai_host and not call.publication else None
    return entry if isinstance(entry, HostEntry) else None
