"""What a publication takes of tenants, held at its commit: a host granted to its own, and those it allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from admin import lookups
from admin.acts import tenants
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Rule, invalid
from catalog.changes import Change, Check
from catalog.records import PublicationRecord, Role

_GONE: Final = Fault("config.authentication.allowedTenants", Rule.EXISTS, "a tenant was deleted meanwhile")


async def host_faults(call: ApiCall, tenant: str, host: str) -> list[Fault]:
    """Say what is wrong with this caller's publishing on a host for a tenant."""
    if host == call.services.gateway.default_host:
        return []
    owner = await lookups.tenant(call.services.store, call.caller, tenant)
    return tenants.host_faults(owner, host, may_grant=call.caller.role is Role.ADMIN)


async def hold_host(call: ApiCall, publication: PublicationRecord) -> list[Change]:
    """Hold the grant of a publication's host; an admin's act grants it. Raises ``Problem`` where it is not granted."""
    host = publication.host
    if faults := await host_faults(call, publication.tenant, host):
        raise invalid(Code.INVALID_CONFIG, faults)
    if host == call.services.gateway.default_host:
        return []
    owner = await lookups.tenant(call.services.store, call.caller, publication.tenant)
    return [tenants.hold_host(owner, host, publication.updated_at_ms)]


async def hold_allowed(call: ApiCall, publication: PublicationRecord, kept: Collection[str] = ()) -> list[Check]:
    """Hold the tenants that a publication allows from now on: whoever gets such a name later is not let in by it."""
    new = set(publication.allowed_tenants) - {publication.tenant, *kept}
    found = await lookups.known_tenants(call.services.store, call.caller, new)
    if not new <= found.keys():
        raise invalid(Code.INVALID_CONFIG, [_GONE])
    return [Check.of(one) for one in found.values()]
