"""What closes the gateway, and what brings bodies to Check. Pure.

The SecurityPolicy on the Gateway closes it: without any everything is open, so it is written first and never removed.
The other one holds for routes of openai models and sends Check the calls' bodies too. Its filter is another than the
first's, and where Envoy refuses the listener with it, a route that names it is open. So no rule of those routes leads
to a server unless the call has the header that Check alone can set (``rules``). And routes that take no call have both
filters stand on every listener from the start on (``routes``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from publisher.browsers import ANY, EXPOSED_HEADERS, MAX_AGE_S
from publisher.envoy.bodies import LARGE_CHECK_S
from publisher.gateway.gate import gate_name, gate_settings
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import backend_ref
from publisher.gateway.resources.naming import NO_LABELS, Json, made, own_name
from publisher.gateway.resources.targets import READS, gateway_target, read_targets


def security_policy(options: GatewayOptions) -> Json:
    """No answer of the gate's, no way through."""
    targets = {"targetRefs": [gateway_target(options)]}
    return _policy(gate_name(options), targets, _ext_auth(options), options, labels=NO_LABELS)


def bodies_policy(routes: Iterable[Json], options: GatewayOptions) -> Json:
    """The same for those of these routes whose calls' bodies Check reads; a larger body is answered 413.

    A policy has one time limit for all its calls, so theirs is that of large bodies.
    """
    timeout = f"{max(options.check_timeout_ms, 1_000 * LARGE_CHECK_S)}ms"
    ext_auth = _ext_auth(options) | {"bodyToExtAuth": {"maxRequestBytes": options.max_body_bytes}, "timeout": timeout}
    return _policy(bodies_name(options), read_targets(routes, options), ext_auth, options, labels=READS)


def bodies_name(options: GatewayOptions) -> str:
    """The policy that brings bodies, and the route that keeps its filter there."""
    return own_name(options.gateway, "bodies")


def _policy(name: str, targets: Json, ext_auth: Json, options: GatewayOptions, *, labels: Mapping[str, str]) -> Json:
    """A policy takes the whole place of the one on the Gateway, so each says all of it."""
    spec: dict[str, Any] = {**targets, "extAuth": ext_auth}
    if options.origins:
        spec["cors"] = _cors(options)
    where = {"namespace": options.namespace, "gateway": options.gateway}
    return made("SecurityPolicy", name, spec, labels=labels, **where)


def _ext_auth(options: GatewayOptions) -> Json:
    """How the gate is asked. Without a list of headers it is told all of them, so also where copies of a key are."""
    return {
        "failOpen": False,
        "statusOnError": 503,
        "recomputeRoute": True,
        "includeRouteMetadata": True,
        "timeout": f"{options.check_timeout_ms}ms",
        "grpc": {"backendRefs": [backend_ref(gate_name(options))], "backendSettings": gate_settings(options)},
    }


def _cors(options: GatewayOptions) -> Json:
    return {
        "allowOrigins": list(options.origins),
        "allowMethods": [ANY],
        "allowHeaders": [ANY],
        "exposeHeaders": list(EXPOSED_HEADERS),
        "maxAge": f"{MAX_AGE_S}s",
        "allowCredentials": False,
    }
