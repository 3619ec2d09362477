"""Reading what is to be known of tenants' cells: whose shard is what, and who shares models with whom."""

from __future__ import annotations

from collections.abc import Collection

from admin import lookups
from admin.acts import cells
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Rule, invalid
from admin.people.callers import Caller
from admin.schemas.schemas import TenantInput
from catalog.changes import Change, Check
from catalog.damage import CorruptRecord
from catalog.ids import shard_of
from catalog.records import Kind, PublicationRecord, TenantRecord
from catalog.store.store import PAGE, CatalogStore


async def tenants_known(store: CatalogStore, names: Collection[str]) -> dict[str, TenantRecord]:
    """Read tenants, whoever asks."""
    found = await store.get_many(Kind.TENANT, sorted({*names}))
    return {name: one for name, one in found.items() if isinstance(one, TenantRecord)}


async def allowed_faults(call: ApiCall, owner: str, allowed: Collection[str]) -> list[Fault]:
    """Say which tenants could not call an owner's publication, as far as the caller may know of them."""
    if call.services.cells == 1 or not allowed:
        return []
    field = "config.authentication.allowedTenants"
    known = await lookups.known_tenants(call.services.store, call.caller, [owner, *allowed])
    return [*cells.faults_of(owner, enumerate(allowed), known, call.services.cells, field)]


async def shard_of_tenant(store: CatalogStore, tenant: str) -> int:
    """The shard of a tenant, by its record where there is one."""
    return cells.home_of(tenant, await tenants_known(store, [tenant]))


async def chosen(store: CatalogStore, caller: Caller, body: TenantInput, count: int) -> tuple[int, list[Change]]:
    """The shard that a new tenant is to have, and what must hold for it at the commit; raises ``Problem``."""
    if body.cell_of is not None and body.cell is not None:
        raise invalid(Code.INVALID_REQUEST, [Fault("cell", Rule.FIXED, "cannot be given together with cellOf")])
    if body.cell_of is not None:
        other = await lookups.require_tenant(store, caller, body.cell_of, "cellOf")
        return other.shard, [Check.of(other)] if other.id != body.tenant_id else []  # which there is already
    if body.cell is not None:
        return cells.shard_in(body.cell, body.tenant_id, count), []
    return shard_of(body.tenant_id), []


async def shared_by(store: CatalogStore, tenants: Collection[str]) -> list[PublicationRecord]:
    """Read the publications that are these tenants', or that one of them may call; raises ``CorruptRecord``."""
    uids: set[str] = set()
    for allowed in (False, True):
        after = ""
        while ids := await store.ids_of(Kind.PUBLICATION, [*tenants], after=after, allowed=allowed):
            uids |= set(ids)
            after = ids[-1]
            if len(ids) < PAGE:
                break
    found: list[PublicationRecord] = []
    ordered = sorted(uids)
    for start in range(0, len(ordered), PAGE):
        for one in (await store.read_page(Kind.PUBLICATION, ordered[start : start + PAGE])).values():
            if isinstance(one, CorruptRecord):
                raise one
            if isinstance(one, PublicationRecord):
                found.append(one)
    return found
