"""What an act changed, as the audit stream tells it: field -> ``old -> new``. Pure; metadata's content is not told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from msgspec import structs

from admin.acts import limits, tokens
from catalog.records import KeyRecord, PublicationRecord, TenantRecord, UserRecord

CHANGED: Final = "changed"
"""Of what is never told."""


Record = TypeVar("Record", KeyRecord, PublicationRecord, TenantRecord, UserRecord)


def is_none(old: Record, new: Record) -> bool:
    """Whether a change changes nothing: no record is written for it, and no act told."""
    return structs.replace(new, updated_at_ms=old.updated_at_ms, version=old.version) == old


def between(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The fields whose telling differs."""
    return {name: f"{old[name]} -> {value}" for name, value in new.items() if old[name] != value}


def of_tenant(tenant: TenantRecord) -> dict[str, str]:
    """A tenant as it is told."""
    return {
        "disabled": str(tenant.disabled).lower(),
        "hosts": " ".join(tenant.hosts),
        "upstreamAllow": " ".join(tenant.upstream_allow),
        **limits.told(tenant.limits),
    }


def of_key(key: KeyRecord, publications: Iterable[str]) -> dict[str, str]:
    """A key as it is told; ``publications`` are names."""
    return {
        "name": key.name,
        "publications": " ".join(sorted(publications)),
        "expiresAtMs": "never" if key.expires_at_ms is None else str(key.expires_at_ms),
        "disabled": str(key.disabled).lower(),
        "description": key.description or "",
        "owner": key.owner or "",
        "labels": ",".join(f"{name}={value}" for name, value in sorted((key.labels or {}).items())),
        **limits.told(key.limits),
    }


def of_publication(publication: PublicationRecord) -> dict[str, str]:
    """A publication as it is told."""
    return {
        "publicHostname": publication.host,
        "externalPath": publication.path,
        "modelType": publication.type.value,
        "modelId": publication.served_as,
        "aliases": " ".join(map(json.dumps, publication.aliases)),
        "requireApiKey": str(publication.require_api_key).lower(),
        "anonymousRequestsPerMinute": str(publication.anonymous_per_minute),
        "allowedTenants": " ".join(publication.allowed_tenants),
        "allowedEndpoints": " ".join(publication.allowed_endpoints),
        "allowBackground": str(publication.allow_background).lower(),
        "metadata": f"{len(publication.metadata)} entries",
        **limits.told(publication.limits),
        **tokens.told(publication.tokens),
    }
