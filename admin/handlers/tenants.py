"""Tenants and their budgets."""

from __future__ import annotations

import dataclasses

from admin import lookups, paging
from admin.acts import differences, limits
from admin.calls import ApiCall, Reply
from admin.committing import until_settled
from admin.handlers import views
from admin.preconditions import tagged
from admin.problems import Code, Problem
from admin.schemas import TenantChange, TenantInput, Tenants
from catalog.changes import Put
from catalog.ids import shard_of
from catalog.records import UNLIMITED, Kind, TenantRecord
from catalog.store import Conflict


async def list_tenants(call: ApiCall) -> Reply:
    """List the caller's tenants."""
    page = await paging.page(
        call.services.store, Kind.TENANT, TenantRecord, call.query, lambda one: call.caller.sees(one.id)
    )
    return Reply(200, Tenants(items=[views.tenant(one) for one in page.records], next=page.next))


async def show_tenant(call: ApiCall) -> Reply:
    """Show a tenant."""
    found = await lookups.tenant(call.services.store, call.caller, call.path["t"])
    return Reply(200, views.tenant(found), tagged(found))


async def create_tenant(call: ApiCall) -> Reply:
    """Make a tenant."""
    body = call.body(TenantInput)
    now_ms = await call.services.store.now_ms()
    made = TenantRecord(
        id=body.tenant_id,
        shard=shard_of(body.tenant_id),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        disabled=body.disabled,
        limits=limits.merged(UNLIMITED, body.rate_limiting),
    )
    audit = call.audit("tenant.create", made.id, made.id, differences.of_tenant(made))
    try:
        await call.services.committer.commit([Put(made, 0)], audit)
    except Conflict:
        raise Problem(
            Code.TENANT_EXISTS, f"there is a tenant {made.id}: PATCH /api/tenants/{made.id} changes it"
        ) from None
    return Reply(201, views.tenant(made), tagged(made))


async def change_tenant(call: ApiCall) -> Reply:
    """Change a tenant's budgets, or disable it."""
    body = call.body(TenantChange)
    changed = await until_settled(lambda: _change(call, body))
    return Reply(200, views.tenant(changed), tagged(changed))


async def _change(call: ApiCall, body: TenantChange) -> TenantRecord:
    old = await lookups.tenant(call.services.store, call.caller, call.path["t"])
    call.require_match(old)
    new = dataclasses.replace(
        old,
        version=old.version + 1,
        disabled=body.disabled if "disabled" in body.model_fields_set else old.disabled,
        limits=limits.merged(old.limits, body.rate_limiting),
        updated_at_ms=await call.services.store.now_ms(),
    )
    detail = differences.between(differences.of_tenant(old), differences.of_tenant(new))
    audit = call.audit("tenant.change", old.id, old.id, detail)
    await call.services.committer.commit([Put(new, old.version)], audit)
    return new
