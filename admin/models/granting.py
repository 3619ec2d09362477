"""What a publication takes of tenants, held at its commit: a host granted to its own, and those it allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from admin import lookups
from admin.acts import tenants
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Rule, invalid
from admin.models import cells
from catalog.changes import Change, Check
from catalog.records import PublicationRecord, Role

_ANOTHER_NAME: Final = "leads to the default host already: leave it out"
_GONE: Final = Fault("config.authentication.allowedTenants", Rule.EXISTS, "a tenant was deleted meanwhile")


async def host_faults(call: ApiCall, tenant: str, host: str) -> list[Fault]:
    """Say what is wrong with this caller's publishing on a host for a tenant."""
    if host == call.services.gateway.default_host:
        return []
    if call.services.gateway.names_default(host):
        return [Fault("config.publicHostname", Rule.RESERVED, _ANOTHER_NAME)]
    owner = await lookups.tenant(call.services.store, call.caller, tenant)
    return tenants.host_faults(owner, host, may_grant=call.caller.role is Role.ADMIN)


async def hold(call: ApiCall, publication: PublicationRecord, before: PublicationRecord | None = None) -> list[Change]:
    """Hold what a publication takes of tenants, in place of ``before``: its host, and those that it allows anew."""
    moves = before is None or before.host != publication.host
    kept = before.allowed_tenants if before else ()
    held = await _hold_host(call, publication) if moves else []
    allowed = await _hold_allowed(call, publication, kept)
    has_owner = any(not isinstance(one, Check) or one.id == publication.tenant for one in held)
    return [*held, *(one for one in allowed if not (has_owner and one.id == publication.tenant))]


async def _hold_host(call: ApiCall, publication: PublicationRecord) -> list[Change]:
    """Hold the grant of a publication's host; an admin's act grants it. Raises ``Problem`` where it is not granted."""
    host = publication.host
    if faults := await host_faults(call, publication.tenant, host):
        raise invalid(Code.INVALID_CONFIG, faults)
    if host == call.services.gateway.default_host:
        return []
    owner = await lookups.tenant(call.services.store, call.caller, publication.tenant)
    return [tenants.hold_host(owner, host, publication.updated_at_ms)]


async def _hold_allowed(call: ApiCall, publication: PublicationRecord, kept: Collection[str]) -> list[Check]:
    """Hold the tenants that a publication allows from now on, with its owner, in whose cell they are.

    Whoever gets such a name later is not let in by it, and none is moved away meanwhile.
    """
    new = set(publication.allowed_tenants) - {publication.tenant, *kept}
    if not new:
        return []
    found = await lookups.known_tenants(call.services.store, call.caller, {*new, publication.tenant})
    if not new <= found.keys():
        raise invalid(Code.INVALID_CONFIG, [_GONE])
    if faults := await cells.allowed_faults(call, publication.tenant, sorted(new)):
        raise invalid(Code.INVALID_CONFIG, faults)
    return [Check.of(one) for one in found.values()]
