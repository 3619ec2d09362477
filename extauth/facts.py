"""Which records a call needs, and what they say about it once they are there. Pure.

A call names some records itself (its key, its route's publication or host); those name others (the key's tenant, the
publication that the host's table gives); and a publication names the tenant whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from catalog.keys.keytext import ParsedKey
from catalog.records import Kind, ref
from extauth.decide import Facts, resolve_model
from extauth.listing import listed_uids, model_named
from extauth.reasons import Reason
from extauth.records.entries import Entry, HostEntry, KeyEntry, PublicationEntry, TenantEntry
from extauth.request.call import Call

Presented = ParsedKey | Reason
Entries = Mapping[str, Entry]


def first_refs(call: Call, presented: Presented) -> list[str]:
    """Name the records that the call itself names."""
    refs = [] if isinstance(presented, Reason) else [ref(Kind.KEY, presented.id)]
    if call.publication:
        refs.append(ref(Kind.PUBLICATION, call.publication))
    elif call.openai_host and refs:
        refs.append(ref(Kind.HOST, call.openai_host))
    return refs


def second_refs(call: Call, presented: Presented, entries: Entries) -> list[str]:
    """Name the records that the first ones name: the key's tenant, the publications its host's table gives."""
    key = _key(presented, entries)
    listed = listed_uids(call, _host(call, entries), key)
    return _indispensable(call, key, entries) + [ref(Kind.PUBLICATION, uid) for uid in listed]


def needed_refs(call: Call, presented: Presented, entries: Entries) -> list[str]:
    """Name every record, of a call whose first ones are here, without which it cannot be decided.

    A list of models is told without those that cannot be read.
    """
    named = first_refs(call, presented) + _indispensable(call, _key(presented, entries), entries)
    found = [entries[name] for name in named if name in entries]
    return named + [entry.owner_ref for entry in found if isinstance(entry, PublicationEntry)]


def owner_refs(entries: Entries) -> set[str]:
    """Name the tenants of the publications here, as far as their records are not here too."""
    owners = {entry.owner_ref for entry in entries.values() if isinstance(entry, PublicationEntry)}
    return owners - entries.keys()


def _indispensable(call: Call, key: KeyEntry | None, entries: Entries) -> list[str]:
    refs = [ref(Kind.TENANT, key.tenant)] if key else []
    uid = resolve_model(_host(call, entries), key, model_named(call))
    return [*refs, ref(Kind.PUBLICATION, uid)] if uid else refs


def facts_of(call: Call, presented: Presented, entries: Entries) -> Facts:
    """Gather what the records here say about a call."""
    key, host = _key(presented, entries), _host(call, entries)
    tenant = entries.get(ref(Kind.TENANT, key.tenant)) if key else None
    uid = call.publication or resolve_model(host, key, model_named(call))
    publication = entries.get(ref(Kind.PUBLICATION, uid)) if uid else None
    named = [publication, *(entries.get(ref(Kind.PUBLICATION, one)) for one in listed_uids(call, host, key))]
    return Facts(
        key=key,
        tenant=tenant if isinstance(tenant, TenantEntry) else None,
        publication=publication if isinstance(publication, PublicationEntry) else None,
        host=host,
        listed=tuple(entry for entry in named[1:] if isinstance(entry, PublicationEntry)),
        closed=frozenset([one.id for one in named if isinstance(one, PublicationEntry) and _is_closed(one, entries)]),
    )


def _is_closed(publication: PublicationEntry, entries: Entries) -> bool:
    owner = entries.get(publication.owner_ref)
    return not isinstance(owner, TenantEntry) or owner.record.disabled


def _key(presented: Presented, entries: Entries) -> KeyEntry | None:
    if isinstance(presented, Reason):
        return None
    entry = entries.get(ref(Kind.KEY, presented.id))
    return entry if isinstance(entry, KeyEntry) else None


def _host(call: Call, entries: Entries) -> HostEntry | None:
    entry = entries.get(ref(Kind.HOST, call.openai_host)) if call.openai_host and not call.publication else None
    return entry if isinstance(entry, HostEntry) else None
