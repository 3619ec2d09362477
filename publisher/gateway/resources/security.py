"""The one policy that closes the gateway. Pure.

One SecurityPolicy on the Gateway: a policy per route can open its route where Envoy refuses a listener, and without
any policy everything is open, so it is written first and never removed.
"""

from __future__ import annotations

from typing import Any

from publisher.browsers import ALLOWED_HEADERS, EXPOSED_HEADERS, MAX_AGE_S, METHODS
from publisher.envoy.bootstrap import CHECKED_HEADERS
from publisher.gateway.gate import gate_name, gate_settings
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import backend_ref
from publisher.gateway.resources.naming import Json, made
from publisher.gateway.resources.targets import gateway_target


def security_policy(options: GatewayOptions) -> Json:
    """No answer of the gate's, no way through."""
    spec: dict[str, Any] = {"targetRefs": [gateway_target(options)], "extAuth": _ext_auth(options)}
    if options.origins:
        spec["cors"] = _cors(options)
    return made("SecurityPolicy", gate_name(options), spec, namespace=options.namespace, gateway=options.gateway)


def _ext_auth(options: GatewayOptions) -> Json:
    return {
        "failOpen": False,
        "statusOnError": 503,
        "recomputeRoute": True,
        "includeRouteMetadata": True,
        "timeout": f"{options.check_timeout_ms}ms",
        "headersToExtAuth": list(CHECKED_HEADERS),
        "grpc": {"backendRefs": [backend_ref(gate_name(options))], "backendSettings": gate_settings(options)},
    }


def _cors(options: GatewayOptions) -> Json:
    return {
        "allowOrigins": list(options.origins),
        "allowMethods": list(METHODS),
        "allowHeaders": list(ALLOWED_HEADERS),
        "exposeHeaders": list(EXPOSED_HEADERS),
        "maxAge": f"{MAX_AGE_S}s",
        "allowCredentials": False,
    }
