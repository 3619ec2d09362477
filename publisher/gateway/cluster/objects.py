"""Our objects in a cluster: listed, applied and removed, one request each.

Owns which resources they are and what the API's refusals mean to an operator. Knows no publication, and not when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from publisher.gateway.resources.naming import MANAGER, Json
from publisher.metrics import ClusterMetrics
from publisher.sink import NotServed
from runtime.kube.api import APPLY, Cause, Kind, KubeApi, KubeFault

_ENVOY: Final = "gateway.envoyproxy.io"
_GATEWAY_API: Final = "gateway.networking.k8s.io"
_AI_GATEWAY: Final = "aigateway.envoyproxy.io"

KINDS: Final = {
    "SecurityPolicy": Kind(_ENVOY, "v1alpha1", "securitypolicies"),
    "Backend": Kind(_ENVOY, "v1alpha1", "backends"),
    "ReferenceGrant": Kind(_GATEWAY_API, "v1beta1", "referencegrants"),
    "ClientTrafficPolicy": Kind(_ENVOY, "v1alpha1", "clienttrafficpolicies"),
    "BackendTrafficPolicy": Kind(_ENVOY, "v1alpha1", "backendtrafficpolicies"),
    "EnvoyExtensionPolicy": Kind(_ENVOY, "v1alpha1", "envoyextensionpolicies"),
    "EnvoyPatchPolicy": Kind(_ENVOY, "v1alpha1", "envoypatchpolicies"),
    "HTTPRouteFilter": Kind(_ENVOY, "v1alpha1", "httproutefilters"),
    "HTTPRoute": Kind(_GATEWAY_API, "v1", "httproutes"),
    "AIServiceBackend": Kind(_AI_GATEWAY, "v1alpha1", "aiservicebackends"),
    "AIGatewayRoute": Kind(_AI_GATEWAY, "v1alpha1", "aigatewayroutes"),
}
"""Every kind that we ever write."""

OF_AI_GATEWAY: Final = frozenset(name for name, kind in KINDS.items() if kind.group == _AI_GATEWAY)
"""Those of Envoy AI Gateway, which few clusters have."""

_OWNERS: Final = {_ENVOY: "Envoy Gateway's", _GATEWAY_API: "the Gateway API's", _AI_GATEWAY: "Envoy AI Gateway's"}

Place = tuple[str, str]
"""A kind, and the namespace in which we write it."""


class Unfit(Exception):  # noqa: N818  an outcome
    """The API did not take this one object; others are not concerned."""


class Cluster:
    """The objects of one cluster. ``may_write`` is asked at each write: whether this process still publishes."""

    def __init__(self, api: KubeApi, metrics: ClusterMetrics, may_write: Callable[[], bool] = lambda: True) -> None:
        self.api = api
        self._metrics = metrics
        self._may_write = may_write

    async def listed(self, places: Iterable[Place]) -> list[Json]:
        """All objects of these kinds there, whosoever they are; raises ``NotServed``."""
        found = await asyncio.gather(*(self._listed(kind, namespace) for kind, namespace in places))
        return [obj for objects in found for obj in objects]

    async def put(self, obj: Json) -> Json:
        """Apply an object, without taking a field from another manager; raises ``Unfit`` or ``NotServed``."""
        self._require_turn()
        metadata = obj["metadata"]
        path = KINDS[obj["kind"]].path(metadata["namespace"], metadata["name"])
        params = {"fieldManager": MANAGER, "force": "false"}
        try:
            taken = await self.api.ask("PATCH", path, params=params, body=obj, content_type=APPLY)
        except KubeFault as fault:
            if fault.cause in {Cause.CONFLICT, Cause.INVALID}:
                raise Unfit(f"{obj['kind']} {metadata['name']}: {fault}") from fault
            raise NotServed(_trouble(fault, KINDS[obj["kind"]])) from fault
        self._metrics.writes.labels("applied").inc()
        return taken

    async def remove(self, obj: Json) -> None:
        """Remove an object; one that is gone is no fault. Raises ``NotServed``."""
        self._require_turn()
        metadata = obj["metadata"]
        kind = KINDS[obj["kind"]]
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self.api.ask("DELETE", kind.path(metadata["namespace"], metadata["name"]), body=body)
        except KubeFault as fault:
            if fault.cause is not Cause.MISSING:
                raise NotServed(_trouble(fault, kind)) from fault
        self._metrics.writes.labels("removed").inc()

    async def _listed(self, kind: str, namespace: str) -> list[Json]:
        try:
            found = await self.api.ask("GET", KINDS[kind].path(namespace))
        except KubeFault as fault:
            raise NotServed(_trouble(fault, KINDS[kind])) from fault
        return [{**obj, "kind": kind} for obj in found.get("items") or ()]

    def _require_turn(self) -> None:
        if not self._may_write():
            raise NotServed("another process publishes now")


def _trouble(fault: KubeFault, kind: Kind) -> str:
    """What an operator is told."""
    if fault.cause is Cause.MISSING and "namespaces" not in str(fault):
        return f"{_OWNERS[kind.group]} CRDs are not installed: the cluster knows no {kind} of version {kind.version}"
    if fault.cause is Cause.REFUSED:
        return f"the publisher lacks a right: {fault}"
    return str(fault)
