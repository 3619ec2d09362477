"""What an act changed, as the audit stream tells it: field -> ``old -> new``. Pure; metadata's content is not told."""

from __future__ import annotations

from collections.abc import Mapping

from admin.acts import limits
from catalog.records import PublicationRecord, TenantRecord


def between(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The fields whose telling differs."""
    return {name: f"{old[name]} -> {value}" for name, value in new.items() if old[name] != value}


def of_tenant(tenant: TenantRecord) -> dict[str, str]:
    """A tenant as it is told."""
    return {"disabled": str(tenant.disabled).lower(), **limits.told(tenant.limits)}


def of_publication(publication: PublicationRecord) -> dict[str, str]:
    """A publication as it is told."""
    return {
        "publicHostname": publication.host,
        "externalPath": publication.path,
        "modelType": publication.type.value,
        "allowedTenants": " ".join(publication.allowed_tenants),
        "metadata": f"{len(publication.metadata)} entries",
        **limits.told(publication.limits),
    }
