"""Making and changing tenants, and what they are granted: hosts to publish on, servers to register. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from admin.acts import limits
from admin.http.problems import Code, Fault, Problem, Rule
from admin.schemas.fields import MAX_HOSTS
from admin.schemas.schemas import TenantChange, TenantInput
from catalog.changes import Change, Check, Put, Room
from catalog.ids import shard_of
from catalog.records import UNLIMITED, Kind, TenantRecord

NOT_GRANTED: Final = "is not granted to the tenant: an admin grants hosts with PATCH /api/tenants/{t}"
NOT_ALLOWED: Final = "must be within what the tenant's upstreamAllow lists, host names by name"


def created(body: TenantInput, now_ms: int, shard: int | None = None) -> TenantRecord:
    """Make the record of a new tenant; ``shard``: of the cell that was chosen for it."""
    return TenantRecord(
        id=body.tenant_id,
        shard=shard_of(body.tenant_id) if shard is None else shard,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        disabled=body.disabled,
        limits=limits.merged(UNLIMITED, body.rate_limiting),
        hosts=_sorted(body.hosts),
        upstream_allow=_sorted(body.upstream_allow),
    )


def changed(old: TenantRecord, body: TenantChange, now_ms: int) -> TenantRecord:
    """Return a tenant with what was given; its version is the one it will have."""
    given = body.model_fields_set
    return structs.replace(
        old,
        version=old.version + 1,
        disabled=body.disabled if "disabled" in given else old.disabled,
        limits=limits.merged(old.limits, body.rate_limiting),
        hosts=_sorted(body.hosts) if "hosts" in given else old.hosts,
        upstream_allow=_sorted(body.upstream_allow) if "upstream_allow" in given else old.upstream_allow,
        updated_at_ms=now_ms,
    )


def _sorted(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))


def host_faults(tenant: TenantRecord, host: str, *, may_grant: bool) -> list[Fault]:
    """Say what is wrong with publishing on a host that is not the default; nothing tells whether others have it."""
    if host in tenant.hosts or may_grant:
        return []
    return [Fault("config.publicHostname", Rule.RESERVED, NOT_GRANTED)]


def hold_host(tenant: TenantRecord, host: str, now_ms: int) -> Change:
    """Hold a tenant's grant of a host at the commit; grant it there and then where it has none."""
    if host in tenant.hosts:
        return Check.of(tenant)
    if len(tenant.hosts) >= MAX_HOSTS:
        raise Problem(Code.QUOTA_REACHED, f"a tenant may have {MAX_HOSTS} hosts")
    granted = structs.replace(tenant, hosts=_sorted((*tenant.hosts, host)), updated_at_ms=now_ms)
    return Put(granted, tenant.version)


def is_of(tenant: TenantRecord | None, time_ms: int) -> bool:
    """Whether what happened then happened to this tenant, and not to one that had its name before."""
    return tenant is None or time_ms >= tenant.created_at_ms


def nothing_left(tenant: str) -> list[Room]:
    """What must hold so that a tenant can go: nothing is its own, and no publication allows it."""
    own = [Room(kind, tenant, 0) for kind in (Kind.MODEL, Kind.PUBLICATION, Kind.KEY, Kind.USER)]
    return [*own, Room(Kind.PUBLICATION, tenant, 0, allowed=True)]
