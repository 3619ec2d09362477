"""The one policy that closes the gateway, and the gate it asks. Pure.

One SecurityPolicy on the Gateway: a policy per route can open its route where Envoy refuses a listener, and without
any policy everything is open, so it is written first and never removed.
"""

from __future__ import annotations

from typing import Any, Final

from publisher.browsers import ALLOWED_HEADERS, EXPOSED_HEADERS, MAX_AGE_S, METHODS
from publisher.envoy_bootstrap import CHECKED_HEADERS
from publisher.gateway.backends import backend_ref, endpoint
from publisher.gateway.naming import Json, made, own_name
from publisher.gateway.options import GateTrust, GatewayOptions, SecretRef
from publisher.gateway.targets import gateway_target

_UNIX: Final = "unix:"
_MAX_CALLS: Final = 4096
_HEALTH_INTERVAL: Final = "1s"
_LEFT_OUT: Final = "2s"
"""For how long a worker that failed a call is not asked: longer than a health check takes to see if it is there."""


def security_policy(options: GatewayOptions) -> Json:
    """No answer of the gate's, no way through."""
    spec: dict[str, Any] = {"targetRefs": [gateway_target(options)], "extAuth": _ext_auth(options)}
    if options.origins:
        spec["cors"] = _cors(options)
    return _made("SecurityPolicy", policy_name(options), spec, options)


def gate_backend(options: GatewayOptions) -> Json:
    """The gate's workers over HTTP/2."""
    spec: dict[str, Any] = {
        "appProtocols": ["gateway.envoyproxy.io/h2c"],
        "endpoints": [_endpoint(target) for target in options.gate],
    }
    if options.gate_tls is not None:
        spec["tls"] = _tls(options.gate_tls)
    return _made("Backend", policy_name(options), spec, options)


def policy_name(options: GatewayOptions) -> str:
    """The SecurityPolicy and the gate's Backend."""
    return own_name(options.gateway, "gate")


def gate_client(options: GatewayOptions) -> dict[str, str]:
    """How Envoy reaches the policy's gate, to tell it how calls ended too: by the cluster that Envoy Gateway makes.

    Its name begins with the policy's kind, which an Envoy Gateway that reads files has forgotten by then; no server
    takes such a name for the one it is asked by, so that is said too.
    """
    kind, name = "" if options.from_files else "securitypolicy", policy_name(options)
    return {
        "cluster_name": f"{kind}/{options.namespace}/{name}/extauth/0",
        "authority": f"{name}.{options.namespace}",
    }


def secret_ref(reference: SecretRef) -> Json:
    """A Secret as an object names it."""
    where = {"namespace": reference.namespace} if reference.namespace else {}
    return {"group": "", "kind": "Secret", "name": reference.name, **where}


def _made(kind: str, name: str, spec: Json, options: GatewayOptions) -> Json:
    return made(kind, name, spec, namespace=options.namespace, gateway=options.gateway)


def _ext_auth(options: GatewayOptions) -> Json:
    return {
        "failOpen": False,
        "statusOnError": 503,
        "recomputeRoute": True,
        "includeRouteMetadata": True,
        "timeout": f"{options.check_timeout_ms}ms",
        "headersToExtAuth": list(CHECKED_HEADERS),
        "grpc": {"backendRefs": [backend_ref(policy_name(options))], "backendSettings": _settings(options)},
    }


def _settings(options: GatewayOptions) -> Json:
    """Calls go round the workers in turn. None is made twice: a Check may have been counted."""
    settings: dict[str, Any] = {
        "circuitBreaker": {"maxPendingRequests": _MAX_CALLS, "maxParallelRequests": _MAX_CALLS},
        "loadBalancer": {"type": "RoundRobin"},
        "timeout": {"tcp": {"connectTimeout": f"{options.check_timeout_ms}ms"}},
    }
    if len(options.gate) > 1:
        settings["healthCheck"] = _leaving_out(len(options.gate))
    return settings


def _leaving_out(count: int) -> Json:
    """Ask those that are there. If none seems to be, all are asked: a gate without its store has answers of its own."""
    active = {
        "type": "GRPC",
        "timeout": "1s",
        "interval": _HEALTH_INTERVAL,
        "unhealthyThreshold": 1,
        "healthyThreshold": 1,
    }
    passive = {
        "splitExternalLocalOriginErrors": True,
        "consecutiveLocalOriginFailures": 1,
        "consecutiveGatewayErrors": 0,
        "consecutive5XxErrors": 0,
        "interval": _HEALTH_INTERVAL,
        "baseEjectionTime": _LEFT_OUT,
        "maxEjectionPercent": 100 * (count - 1) // count,
    }
    return {"active": active, "passive": passive, "panicThreshold": 1}


def _endpoint(target: str) -> Json:
    if target.startswith(_UNIX):
        return {"unix": {"path": target.removeprefix(_UNIX)}}
    host, _, port = target.rpartition(":")
    return endpoint(host.strip("[]"), int(port))


def _tls(trust: GateTrust) -> Json:
    tls: dict[str, Any] = {
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": trust.ca}],
        "sni": trust.name,
    }
    if trust.client is not None:
        tls["clientCertificateRef"] = secret_ref(trust.client)
    return tls


def _cors(options: GatewayOptions) -> Json:
    return {
        "allowOrigins": list(options.origins),
        "allowMethods": list(METHODS),
        "allowHeaders": list(ALLOWED_HEADERS),
        "exposeHeaders": list(EXPOSED_HEADERS),
        "maxAge": f"{MAX_AGE_S}s",
        "allowCredentials": False,
    }
