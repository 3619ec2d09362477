"""The gate as Envoy Gateway is told of it: its workers, which of them are asked, and who each side shows to be. Pure.

Calls go round the workers in turn, and none is made twice: a Check may have been counted. Where there may be several, a
worker that has died or drains is left out, as on plain Envoy (``envoy_gate``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from publisher.envoy.gate import LEFT_OUT, MAX_CALLS, is_named
from publisher.gateway.options import GateTrust, GatewayOptions, SecretRef
from publisher.gateway.resources.backends import endpoint
from publisher.gateway.resources.naming import Json, made, own_name
from runtime.addresses import UnixAddress, parse_address

HEALTH_INTERVAL: Final = "1s"


def gate_name(options: GatewayOptions) -> str:
    """The gate's Backend, and the SecurityPolicy that asks it."""
    return own_name(options.gateway, "gate")


def gate_backend(options: GatewayOptions) -> Json:
    """The gate's workers over HTTP/2."""
    return workers(gate_name(options), options.gate, options)


def workers(name: str, targets: Sequence[str], options: GatewayOptions) -> Json:
    """A Backend of the gate's: what its workers listen to there, over HTTP/2."""
    spec: dict[str, Any] = {
        "appProtocols": ["gateway.envoyproxy.io/h2c"],
        "endpoints": [_endpoint(target) for target in targets],
    }
    if options.gate_tls is not None:
        spec["tls"] = _tls(options.gate_tls)
    return made("Backend", name, spec, namespace=options.namespace, gateway=options.gateway)


def gate_settings(options: GatewayOptions) -> Json:
    """How the workers are called."""
    settings = calling(options.gate, options, has_name=options.patches)
    settings["circuitBreaker"] = {"maxPendingRequests": MAX_CALLS, "maxParallelRequests": MAX_CALLS}
    return settings


def calling(targets: Sequence[str], options: GatewayOptions, *, has_name: bool) -> Json:
    """Whom of these to call, and for how long to try. ``has_name``: health can be asked by a name that they take."""
    settings: dict[str, Any] = {
        "loadBalancer": {"type": "RoundRobin"},
        "timeout": {"tcp": {"connectTimeout": f"{options.check_timeout_ms}ms"}},
    }
    if are_several(targets):
        settings["healthCheck"] = _leaving_out(max(2, len(targets)), has_name=has_name)
    return settings


def are_several(targets: Sequence[str]) -> bool:
    """Whether there may be several workers: behind one name too."""
    return len(targets) > 1 or any(is_named(parse_address(one)) for one in targets)


def secret_ref(reference: SecretRef) -> Json:
    """A Secret as an object names it."""
    where = {"namespace": reference.namespace} if reference.namespace else {}
    return {"group": "", "kind": "Secret", "name": reference.name, **where}


def _leaving_out(count: int, *, has_name: bool) -> Json:
    """Ask those that are there. If none seems to be, all are asked: a gate without its store has answers of its own.

    Unless a patch names it (``has_name``), a gate cannot be asked for its health: that it is there must do then.
    """
    active = {
        **({"type": "GRPC"} if has_name else {"type": "TCP", "tcp": {}}),
        "timeout": "1s",
        "interval": HEALTH_INTERVAL,
        "unhealthyThreshold": 1,
        "healthyThreshold": 1,
    }
    passive = {
        "splitExternalLocalOriginErrors": True,
        "consecutiveLocalOriginFailures": 1,
        "consecutiveGatewayErrors": 0,
        "consecutive5XxErrors": 0,
        "interval": HEALTH_INTERVAL,
        "baseEjectionTime": LEFT_OUT,
        "maxEjectionPercent": 100 * (count - 1) // count,
    }
    return {"active": active, "passive": passive, "panicThreshold": 1}


def _endpoint(written: str) -> Json:
    target = parse_address(written)
    if isinstance(target, UnixAddress):
        return {"unix": {"path": str(target.path)}}
    return endpoint(target.host, target.port)


def _tls(trust: GateTrust) -> Json:
    tls: dict[str, Any] = {
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": trust.ca}],
        "sni": trust.name,
    }
    if trust.client is not None:
        tls["clientCertificateRef"] = secret_ref(trust.client)
    return tls
