"""Removing records that cannot be read any more, as far as their names can still be told. For admins only.

What such a record said is lost, so what else belonged to it is found by looking: the publication of a model by its
name, a publication's model and its places in the tables of hosts by its uid, what stands on a host by the
publications. Keys that named it are left: it opens nothing again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from admin import lookups
from admin.acts import hosts, publications, servers
from admin.http.calls import ApiCall
from admin.models.servers import standings_of
from admin.models.sites import readable, site_of, sites_with
from admin.models.tables import open_again
from catalog.actors import told
from catalog.changes import CORRUPT, Change, Delete, Put
from catalog.damage import CorruptRecord
from catalog.ids import shard_of, shard_prefix
from catalog.keys.keytext import mask
from catalog.records import HostRecord, Kind, ModelRecord, PublicationRecord, Role, ServerRecord
from catalog.store.store import CatalogStore
from ratelimit.names import usage_key


def require_admin(call: ApiCall, error: CorruptRecord, kind: Kind) -> Delete:
    """Return what removes a damaged record of this kind; raises ``error`` where the caller may not."""
    call.require_match()
    if call.caller.role is not Role.ADMIN or error.kind is not kind:
        raise error
    return error.removal()


async def discard_key(call: ApiCall, removal: Delete) -> None:
    """Remove a key that cannot be read."""
    audit = call.audit("key.discard", removal.id, "", {"apiKey": mask(removal.id)})
    forget = [usage_key(call.services.cell(removal.id), f"k:{removal.id}")]
    await call.services.committer.commit([removal], audit, forget)


async def discard_model(call: ApiCall, removal: Delete) -> None:
    """Remove a model that cannot be read, and its publication with it."""
    store = call.services.store
    changes: list[Change] = [removal]
    async for publication in _publications_of(store, removal.id):
        key = await lookups.key_of(store, publication)
        standings = await standings_of(store, publication)
        site, by, now_ms = await site_of(store, publication), told(call.caller.acting), await store.now_ms()
        changes += publications.retract(publication, key, site, standings, by=by, now_ms=now_ms)
    tenant = removal.id.partition("/")[0]
    await call.services.committer.commit(changes, call.audit("model.discard", removal.id, tenant, {}))


async def discard_publication(call: ApiCall, model: ModelRecord | None, removal: Delete) -> None:
    """Take away from callers what cannot be read; ``model``: the one that it publishes, where there is one still."""
    store, uid = call.services.store, removal.id
    changes: list[Change] = [removal]
    if model is not None:
        changes.append(Put(publications.without_publication(model, await store.now_ms()), model.version))
    for site in await sites_with(store, uid):
        changes += hosts.release(site, uid)
    async for server in readable(store, Kind.SERVER, ServerRecord):
        released = servers.release(servers.Standing(server, server.version), uid) if uid in server.callers else None
        changes += [] if released is None else [released]
    forget = [usage_key(call.services.cell(uid), f"p:{uid}")]
    target, tenant = (model.id, model.tenant) if model else (uid, "")
    await call.services.committer.commit(changes, call.audit("publication.discard", target, tenant, {}), forget)


async def discard_host(call: ApiCall, removal: Delete) -> None:
    """Make a host's table again from the publications that say they stand there; without any it goes."""
    store, name = call.services.store, removal.id
    table = HostRecord(name, {}, {}, created_at_ms=await store.now_ms())
    standing = [one async for one in readable(store, Kind.PUBLICATION, PublicationRecord) if one.host == name]
    for one in standing:
        table = hosts.entered(table, one)
    change = Put(table, CORRUPT, removal.stored) if standing else removal
    audit = call.audit("host.discard", name, "", {"publications": str(len(standing))})
    await call.services.committer.commit([change], audit)


async def repair_places(call: ApiCall, host: HostRecord) -> None:
    """Make the table of a closed host again, which its damaged places and routes do not count beside."""

    async def commit(changes: Sequence[Change], action: str) -> None:
        await call.services.committer.commit(changes, call.audit(action, host.id, "", {}))

    await open_again(call.services.store, host, commit)


async def model_publishing(store: CatalogStore, uid: str) -> ModelRecord | None:
    """Find the model whose publication this is."""
    async for model in readable(store, Kind.MODEL, ModelRecord):
        if model.publication == uid:
            return model
    return None


async def _publications_of(store: CatalogStore, model_id: str) -> AsyncIterator[PublicationRecord]:
    """Find by its name what a model's record would have told."""
    prefix = shard_prefix(shard_of(model_id.partition("/")[0]))
    async for one in readable(store, Kind.PUBLICATION, PublicationRecord, prefix):
        if f"{one.tenant}/{one.model}" == model_id:
            yield one
