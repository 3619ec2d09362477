"""Names and labels of our objects: within Kubernetes' limits, and the same for the same content. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from extauth.request.route_names import ROUTE_PREFIX

Json = dict[str, Any]

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "tollkeeper"
"""The value of the label by which we know our own objects, and our field manager in a cluster."""

GATEWAY_LABEL: Final = "tollkeeper.dev/gateway"
"""Names the gateway that an object belongs to: several may share a namespace."""

NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
MAX_NAME: Final = 253
MAX_LABEL: Final = 63

_HASH: Final = 32
"""Digits of a hash, four bits each: nobody finds two servers of one name, however many models they may name."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

_API: Final = {
    "AIGatewayRoute": "aigateway.envoyproxy.io/v1alpha1",
    "AIServiceBackend": "aigateway.envoyproxy.io/v1alpha1",
    "Gateway": "gateway.networking.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "ReferenceGrant": "gateway.networking.k8s.io/v1beta1",
}
_ENVOY_GATEWAY: Final = "gateway.envoyproxy.io/v1alpha1"
_CLUSTER_WIDE: Final = frozenset({"GatewayClass"})


def made(
    kind: str, name: str, spec: Json, *, namespace: str, gateway: str, labels: Mapping[str, str] = NO_LABELS
) -> Json:
    """One object of ours. ``labels``: besides those that all have."""
    where = {} if kind in _CLUSTER_WIDE else {"namespace": namespace}
    everyones = {MANAGED_BY: MANAGER, GATEWAY_LABEL: gateway}
    return {
        "apiVersion": _API.get(kind, _ENVOY_GATEWAY),
        "kind": kind,
        "metadata": {"name": name, **where, "labels": {**everyones, **labels}},
        "spec": spec,
    }


def identity(obj: Json) -> tuple[str, str, str]:
    """What makes an object this one and no other: kind, namespace ("" where it has none), name."""
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def own_name(gateway: str, what: str) -> str:
    """An object of which a gateway has one: ``tollkeeper-gate``. Every name of ours begins alike, routes' names too."""
    return f"{ROUTE_PREFIX}{gateway}-{what}" if gateway != MANAGER else f"{ROUTE_PREFIX}{what}"


def content_name(what: str, *content: Any) -> str:
    """An object whose name tells its content: other content is another object, and nothing of the old one stays."""
    return f"{ROUTE_PREFIX}{what}-{digest(*content)}"


def digest(*content: Any) -> str:
    """A hash of JSON-ready values, short enough for names."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH]


def is_name(text: str, *, longest: int = MAX_NAME) -> bool:
    """Whether Kubernetes takes a text as a name: a DNS subdomain."""
    return len(text) <= longest and _NAME.fullmatch(text) is not None
