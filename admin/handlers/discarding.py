"""Removing records that cannot be read any more, as far as their names can still be told. For admins only.

What such a record said is lost, so what else belonged to it is found by looking: the publication of a model by its
name, a publication's places in the tables of hosts by its uid. Keys that named it are left: it opens nothing again.
"""

from __future__ import annotations

from admin import lookups
from admin.acts import hosts, publications
from admin.calls import ApiCall
from catalog.changes import CORRUPT, Change, Delete, Put
from catalog.ids import shard_of, shard_prefix
from catalog.keytext import mask
from catalog.records import HostRecord, Kind, ModelRecord, PublicationRecord, Role
from catalog.store import PAGE, CatalogStore, CorruptRecord
from ratelimit.names import usage_key


def require_admin(call: ApiCall, error: CorruptRecord, kind: Kind) -> str:
    """Return the id of a damaged record of this kind that the caller may remove; raises ``error`` where not."""
    call.require_match()
    found, _, record_id = error.ref.partition(":")
    if call.caller.role is not Role.ADMIN or found != kind.value:
        raise error
    return record_id


async def discard_key(call: ApiCall, key_id: str) -> None:
    """Remove a key that cannot be read."""
    audit = call.audit("key.discard", key_id, "", {"apiKey": mask(key_id)})
    forget = [usage_key(call.services.cell(key_id), f"k:{key_id}")]
    await call.services.committer.commit([Delete(Kind.KEY, key_id, CORRUPT)], audit, forget)


async def discard_model(call: ApiCall, model_id: str) -> None:
    """Remove a model that cannot be read, and its publication with it."""
    store = call.services.store
    changes: list[Change] = [Delete(Kind.MODEL, model_id, CORRUPT)]
    for publication in await _publications_of(store, model_id):
        key = await lookups.key_of(store, publication)
        changes += publications.retract(publication, key, await lookups.host(store, publication.host))
    await call.services.committer.commit(changes, call.audit("model.discard", model_id, model_id.partition("/")[0], {}))


async def discard_publication(call: ApiCall, model: ModelRecord, uid: str) -> None:
    """Take a model away from callers whose publication cannot be read."""
    store = call.services.store
    unpublished = publications.without_publication(model, await store.now_ms())
    changes: list[Change] = [Put(unpublished, model.version), Delete(Kind.PUBLICATION, uid, CORRUPT)]
    changes += [hosts.release(host, uid) for host in await _hosts_of(store, uid)]
    forget = [usage_key(call.services.cell(uid), f"p:{uid}")]
    audit = call.audit("publication.discard", model.id, model.tenant, {})
    await call.services.committer.commit(changes, audit, forget)


async def _publications_of(store: CatalogStore, model_id: str) -> list[PublicationRecord]:
    """Find by its name what a model's record would have told."""
    prefix = shard_prefix(shard_of(model_id.partition("/")[0]))
    found: list[PublicationRecord] = []
    after = ""
    while ids := await store.ids(Kind.PUBLICATION, after=after, prefix=prefix):
        known = (await lookups.publications(store, ids)).values()
        found += [one for one in known if f"{one.tenant}/{one.model}" == model_id]
        after = ids[-1]
        if len(ids) < PAGE:
            break
    return found


async def _hosts_of(store: CatalogStore, uid: str) -> list[HostRecord]:
    """Find the tables that a publication stands in."""
    found: list[HostRecord] = []
    after = ""
    while ids := await store.ids(Kind.HOST, after=after):
        tables = (await store.get_many(Kind.HOST, ids)).values()
        found += [one for one in tables if isinstance(one, HostRecord) and uid in one.paths.values()]
        after = ids[-1]
        if len(ids) < PAGE:
            break
    return found
