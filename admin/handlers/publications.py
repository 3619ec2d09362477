"""Showing, listing and taking back publications, and rotating their keys."""

from __future__ import annotations

from admin import lookups
from admin.acts import differences, publications
from admin.committing import until_settled
from admin.handlers.discarding import discard_publication, model_publishing, require_admin
from admin.handlers.rotation import rotate
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.models.servers import standings_of
from admin.models.sites import site_of
from admin.schemas.schemas import Publications, RotatedKey
from admin.views.publications import show, show_page
from admin.views.records import at, at_or_never
from catalog.actors import told
from catalog.changes import Check, Put
from catalog.damage import CorruptRecord
from catalog.records import Kind, ModelRecord, PublicationRecord
from ratelimit.names import usage_key


async def _published(call: ApiCall) -> lookups.Published:
    store, owner = call.services.store, call.query.get("tenantId")
    model = await lookups.model(store, call.caller, call.path["m"], owner)
    return await lookups.publication_of(store, model)


async def show_publication(call: ApiCall) -> Reply:
    """Show a published model."""
    found = await _published(call)
    answer = await show(call, found.publication)
    return Reply(200, answer, {"Cache-Control": "no-store", **tagged(found.publication)})


async def list_publications(call: ApiCall) -> Reply:
    """List the caller's published models."""
    owner = call.query.get("tenantId")
    page = await paging.page(
        call.services.store,
        Kind.PUBLICATION,
        PublicationRecord,
        call.query,
        lambda one: call.caller.sees(one.tenant) and owner in {None, one.tenant},
        caller=call.caller,
        beneath=paging.tenants_beneath(call.caller, owner),
    )
    items, damaged = await show_page(call.services, page, with_usage=paging.asks_usage(call.query))
    shown = Publications(items=items, damaged=damaged, next=page.next)
    return Reply(200, shown, {"Cache-Control": "no-store"})


async def unpublish(call: ApiCall) -> Reply:
    """Take a model away from callers; its key dies with it."""
    await until_settled(lambda: _unpublish(call))
    return Reply(204)


async def _unpublish(call: ApiCall) -> None:
    model = await lookups.model(call.services.store, call.caller, call.path["m"], call.query.get("tenantId"))
    try:
        publication = (await lookups.publication_of(call.services.store, model)).publication
    except CorruptRecord as damaged:
        await discard_publication(call, model, require_admin(call, damaged, Kind.PUBLICATION))
        return
    call.require_match(publication)
    await _take_back(call, model, publication)


async def remove_publication(call: ApiCall) -> Reply:
    """Take a publication away by its uid, whether it and its model can be read or not."""
    await until_settled(lambda: _remove(call))
    return Reply(204)


async def _remove(call: ApiCall) -> None:
    store, uid = call.services.store, call.path["p"]
    try:
        publication = await lookups.publication(store, call.caller, uid)
    except CorruptRecord as damaged:
        removal = require_admin(call, damaged, Kind.PUBLICATION)
        await discard_publication(call, await model_publishing(store, uid), removal)
        return
    call.require_match(publication)
    await _take_back(call, await model_publishing(store, uid), publication)


async def _take_back(call: ApiCall, model: ModelRecord | None, publication: PublicationRecord) -> None:
    """Remove a publication that can be read; ``model``: the one that it publishes, where there is one still."""
    store = call.services.store
    key = await lookups.key_of(store, publication)
    standings = await standings_of(store, publication)
    site, by, now_ms = await site_of(store, publication), told(call.caller.acting), await store.now_ms()
    changes = publications.retract(publication, key, site, standings, by=by, now_ms=now_ms)
    if model is not None:
        changes.append(Put(publications.without_publication(model, now_ms), model.version))
    target = f"{publication.tenant}/{publication.model}"
    audit = call.audit("publication.delete", target, publication.tenant, differences.of_publication(publication))
    subjects = (f"p:{publication.uid}", f"k:{publication.key_id}")
    cell = call.services.cell(publication.uid)
    forget = [usage_key(cell, subject) for subject in subjects]
    await call.services.committer.commit(changes, audit, forget)


async def rotate_key(call: ApiCall) -> Reply:
    """Give the publication's key a new text. Of two rotations at once, one is refused."""
    publication = (await _published(call)).publication
    key = await lookups.key_of(call.services.store, publication)
    if key is None:
        raise lookups.not_published(f"{publication.tenant}/{publication.model}")
    call.require_match(publication, key)
    seen = [Check.of(publication)] if call.if_match else []
    new = await rotate(call, key, f"{publication.tenant}/{publication.model}", seen)
    previous = new.record.previous
    answer = RotatedKey(
        api_key=new.text.reveal(),
        key_id=key.id,
        model_name=publication.model,
        tenant_id=publication.tenant,
        previous_valid_until=at_or_never(previous.valid_until_ms if previous else None),
        updated_at=at(new.record.updated_at_ms),
    )
    return Reply(200, answer, {"Cache-Control": "no-store", **tagged(new.record)})
