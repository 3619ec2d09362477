"""Tenants: their budgets, what they are granted, and their end."""

from __future__ import annotations

from functools import partial
from typing import Final

from admin import lookups
from admin.acts import differences, tenants, warnings
from admin.committing import until_settled
from admin.handlers.discarding import require_admin
from admin.http import paging
from admin.http.calls import ApiCall, Reply
from admin.http.preconditions import tagged
from admin.http.problems import Code, Problem
from admin.models.cells import chosen
from admin.schemas.schemas import RateLimitingInput, Tenant, TenantChange, TenantInput, Tenants
from admin.views import records as views
from admin.views.listing import listed
from catalog.changes import Audit, Change, Delete, Put, Room
from catalog.damage import CorruptRecord
from catalog.records import Kind, TenantRecord, ref
from catalog.store.store import CatalogStore, Conflict, NoRoom

_COUNTED: Final = {Kind.MODEL: "model", Kind.PUBLICATION: "publication", Kind.KEY: "key", Kind.USER: "user"}


async def list_tenants(call: ApiCall) -> Reply:
    """List the caller's tenants."""
    page = await paging.page(
        call.services.store,
        Kind.TENANT,
        TenantRecord,
        call.query,
        lambda one: call.caller.sees(one.id),
        caller=call.caller,
        beneath=paging.tenants_of(call.caller),
    )
    items, damaged = listed(call.services.metrics, page, partial(views.tenant, cells=call.services.cells))
    return Reply(200, Tenants(items=items, damaged=damaged, next=page.next))


async def show_tenant(call: ApiCall) -> Reply:
    """Show a tenant."""
    found = await lookups.tenant(call.services.store, call.caller, call.path["t"])
    return Reply(200, views.tenant(found, call.services.cells), tagged(found))


async def create_tenant(call: ApiCall) -> Reply:
    """Make a tenant."""
    body, services = call.body(TenantInput), call.services
    shard, held = await chosen(services.store, call.caller, body, services.cells)
    made = tenants.created(body, await services.store.now_ms(), shard)
    audit = call.audit("tenant.create", made.id, made.id, differences.of_tenant(made))
    try:
        await services.committer.commit([Put(made, 0), *held], audit)
    except Conflict as conflict:
        if conflict.ref != ref(Kind.TENANT, made.id):
            raise Problem(Code.CONFLICT, f"the tenant {body.cell_of} was changed meanwhile; try again") from None
        raise Problem(
            Code.TENANT_EXISTS, f"there is a tenant {made.id}: PATCH /api/tenants/{made.id} changes it"
        ) from None
    return Reply(201, _answered(made, body.rate_limiting, services.cells), tagged(made))


def _answered(tenant: TenantRecord, given: RateLimitingInput, cells: int) -> Tenant:
    """Show a tenant with what of its new budgets will hardly be meant."""
    return views.tenant(tenant, cells).model_copy(update={"warnings": list(warnings.of_tenant(given, tenant.limits))})


async def change_tenant(call: ApiCall) -> Reply:
    """Change a tenant's budgets, grant it hosts and servers, or disable it."""
    body = call.body(TenantChange)
    changed = await until_settled(lambda: _change(call, body))
    return Reply(200, _answered(changed, body.rate_limiting, call.services.cells), tagged(changed))


async def _change(call: ApiCall, body: TenantChange) -> TenantRecord:
    old = await lookups.tenant(call.services.store, call.caller, call.path["t"])
    call.require_match(old)
    new = tenants.changed(old, body, await call.services.store.now_ms())
    if differences.is_none(old, new):
        return old
    detail = differences.between(differences.of_tenant(old), differences.of_tenant(new))
    audit = call.audit("tenant.change", old.id, old.id, detail)
    await call.services.committer.commit([Put(new, old.version)], audit)
    return new


async def delete_tenant(call: ApiCall) -> Reply:
    """Delete a tenant that has nothing left."""
    await until_settled(lambda: _delete(call))
    return Reply(204)


async def _delete(call: ApiCall) -> None:
    try:
        old = await lookups.tenant(call.services.store, call.caller, call.path["t"])
    except CorruptRecord as damaged:
        await _delete_it(
            call, require_admin(call, damaged, Kind.TENANT), call.audit("tenant.discard", damaged.id, damaged.id, {})
        )
        return
    call.require_match(old)
    audit = call.audit("tenant.delete", old.id, old.id, differences.of_tenant(old))
    await _delete_it(call, Delete(Kind.TENANT, old.id, old.version), audit)


async def _delete_it(call: ApiCall, removal: Delete, audit: Audit) -> None:
    changes: list[Change] = [removal, *tenants.nothing_left(removal.id)]
    try:
        await call.services.committer.commit(changes, audit)
    except NoRoom:
        raise Problem(Code.TENANT_IN_USE, await _what_is_left(call.services.store, removal.id)) from None


async def _what_is_left(store: CatalogStore, tenant: str) -> str:
    own = {kind: await store.count(Room(kind, tenant, 0)) for kind in _COUNTED}
    allowing = await store.count(Room(Kind.PUBLICATION, tenant, 0, allowed=True)) - own[Kind.PUBLICATION]
    told = [f"{n} {_COUNTED[kind]}{'s' if n > 1 else ''}" for kind, n in own.items() if n]
    if allowing > 0:
        told.append(f"a place in allowedTenants of {allowing} other publication{'s' if allowing > 1 else ''}")
    return f"{tenant} still has {', '.join(told)}" if told else f"{tenant} had something until just now"
