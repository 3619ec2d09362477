"""A publication as a ConfigMap in its tenant's namespace: what is published is seen with kubectl. Pure.

It tells and decides nothing: nobody reads it, and who changes it changes no publication. It holds no key and no hash,
and none of the free metadata, of which nobody knows what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from catalog.namespaces import TENANT_LABEL
from catalog.records import ContextFrom, Limits, ModelType, PublicationRecord, TokenPolicy
from publisher.gateway.resources.naming import GATEWAY_LABEL, MANAGED_BY, MANAGER, Json, digest, is_name

MIRROR_LABEL: Final = "tollkeeper.dev/publication"
"""On a ConfigMap: the uid of the publication that it tells of."""


@dataclass(frozen=True, slots=True)
class Front:
    """The gateway whose publications are mirrored."""

    name: str
    address: Callable[[str, str], str]  # host and path of a publication to the URL at which callers find it


def selector(gateway: str) -> str:
    """What finds a gateway's mirrors: several gateways may share a cluster, each with a catalog of its own."""
    return f"{MANAGED_BY}={MANAGER},{GATEWAY_LABEL}={gateway},{MIRROR_LABEL}"


def homes(namespaces: Iterable[Json]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tell in which namespace each tenant's publications are mirrored, and which namespaces stay without them.

    Of several namespaces of a tenant it is the first by name.
    """
    first: dict[str, str] = {}
    faults: list[str] = []
    for name, labels in sorted((one["metadata"]["name"], one["metadata"].get("labels") or {}) for one in namespaces):
        tenant = labels.get(TENANT_LABEL, "")
        if tenant and first.setdefault(tenant, name) != name:
            faults.append(f"namespace {name}: tenant {tenant}'s publications are mirrored in {first[tenant]} only")
    return first, tuple(faults)


def mirrors(records: Iterable[PublicationRecord], homes: Mapping[str, str], front: Front) -> tuple[Json, ...]:
    """The ConfigMaps of all publications whose tenant has a namespace, in a stable order."""
    housed = sorted((record for record in records if record.tenant in homes), key=lambda one: (one.tenant, one.model))
    return tuple(mirror(record, homes[record.tenant], front) for record in housed)


def mirror(record: PublicationRecord, namespace: str, front: Front) -> Json:
    """One publication."""
    labels = {MANAGED_BY: MANAGER, GATEWAY_LABEL: front.name, MIRROR_LABEL: record.uid, TENANT_LABEL: record.tenant}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": mirror_name(record.model), "namespace": namespace, "labels": labels},
        "data": _data(record, front),
    }


def mirror_name(model: str) -> str:
    """``published-model-my-model``; a model's name that no ConfigMap can have is told apart by a hash."""
    name = f"published-model-{model}"
    if is_name(name):
        return name
    plain = "".join(letter if letter.isalnum() else "-" for letter in model.lower())
    return f"published-model-{plain}-{digest(model)}"


def _data(record: PublicationRecord, front: Front) -> dict[str, str]:
    config = _config(record)
    return {
        "uid": record.uid,
        "modelName": record.model,
        "modelId": record.served_as,
        "tenantId": record.tenant,
        "modelType": record.type.value,
        "publicHostname": record.host,
        "externalPath": record.path,
        "externalUrl": front.address(record.host, record.path),
        "rateLimiting": _text(config["rateLimiting"]),
        "allowedTenants": " ".join(record.allowed_tenants),
        "statusPath": f"/api/models/{quote(record.model, safe='')}/publish?tenantId={record.tenant}",
        "publish.json": _text({"config": config}),
    }


def _config(record: PublicationRecord) -> Json:
    """What publishes it again as it is, with POST /api/models/{m}/publish."""
    openai = {
        "tokens": _tokens(record.tokens),
        "allowedEndpoints": list(record.allowed_endpoints),
        "allowBackground": record.allow_background,
        "aliases": list(record.aliases),
    }
    return {
        "tenantId": record.tenant,
        "publicHostname": record.host,
        "externalPath": record.path,
        "modelType": record.type.value,
        "rateLimiting": _limits(record.limits),
        "authentication": {
            "requireApiKey": record.require_api_key,
            "allowedTenants": list(record.allowed_tenants),
            "anonymousRequestsPerMinute": record.anonymous_per_minute,
        },
        **(openai if record.type is ModelType.OPENAI else {}),
    }


def _limits(limits: Limits) -> Json:
    return {
        "requestsPerMinute": limits.per_minute,
        "requestsPerHour": limits.per_hour,
        "tokensPerHour": limits.tokens_per_hour,
        "burstLimit": limits.burst,
    }


def _tokens(policy: TokenPolicy) -> Json:
    given = policy.context_from is ContextFrom.SETTING  # what a server told, it tells again
    return {
        **({"contextTokens": policy.context_tokens} if given else {}),
        "reservation": policy.reservation.value,
        "missingUsage": policy.missing_usage.value,
        "reservationTimeoutSeconds": policy.reservation_timeout_s,
        "defaultCompletionTokens": policy.default_completion_tokens,
        "mediaPartTokens": policy.media_part_tokens,
        "bytesPerToken": policy.bytes_per_token,
        "streamBytesPerToken": policy.stream_bytes_per_token,
        "clampUsage": policy.clamp_usage,
    }


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True)
