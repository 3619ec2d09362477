"""What Envoy Gateway's own resources have no words for, as patches of what it tells Envoy. Pure.

Each concern is a policy of its own: one that Envoy Gateway cannot apply leaves the others in force. All fail closed but
the settlement, without which tokens are charged by each publication's ``missingUsage``. A patch without anything to
match makes its policy look broken, so what needs routes is written only for listeners that take some.

Filters stand on the listener turned off, and a patch of the routes turns them on where bodies are read. It adds to a
route's settings by filter, and never replaces them: that is where Envoy Gateway turns Check on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from extauth.request.route_names import ENTRY, READS_BODY, ROUTE_PREFIX
from publisher.envoy.bootstrap import MAX_HEADERS, MAX_HEADERS_KB, NOBODY, SERVER_NAME, SETTLE_TIMEOUT, local_replies
from publisher.envoy.files import body_filters_on
from publisher.envoy.meter import REQUEST_NAMESPACE, body_filter, settle_filter, sse_filter
from publisher.gateway.gate import HEALTH_INTERVAL, are_several, gate_client
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.listeners import taking
from publisher.gateway.resources.naming import Json, made, own_name
from publisher.gateway.resources.targets import gateway_target
from publisher.plan import Plan

_LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
_ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_EXT_AUTHZ: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"

_MANAGER: Final = "$..filters[?(@.name=='envoy.filters.network.http_connection_manager')].typed_config"
"""How calls are read, of every filter chain: http has one of its own, each https hostname another."""
_FILTERS: Final = "$..http_filters"
_ROUTER: Final = "$..http_filters[?(@.name=='envoy.filters.http.router')]"
_CHECK: Final = f"$..http_filters[?(@.typed_config['@type']=='{_EXT_AUTHZ}')].typed_config"


def patches(options: GatewayOptions) -> list[Json]:
    """What holds whatever is published."""
    if not options.patches:
        return []
    listeners = _called(options.listeners, options)
    return [
        _policy("meter", map(_meter, listeners), options),
        _policy("settle", (_settlement(name, options) for name in listeners), options),
        _policy("hardened", (_hardened(name, options) for name in listeners), options),
        _policy("replies", map(_replies, listeners), options),
    ]


def route_patches(plan: Plan, options: GatewayOptions) -> list[Json]:
    """What holds for what is published; a plan that fits (``fitting``)."""
    if not options.patches or not plan.hosts:
        return []
    made_ones = []
    if asking := _called((one.listener for one in taking([host.name for host in plan.hosts], options)), options):
        made_ones.append(_policy("told", map(_told, asking), options))
    if reading := _called((one.name for one in taking(_hosts_with_bodies(plan), options)), options):
        made_ones.append(_policy("bodies", (_bodies(name, options) for name in reading), options))
    if are_several(options):
        made_ones.append(_policy("gates", [_gates(options)], options))
    return made_ones


_Patches = Sequence[tuple[str, str, Json]]  # type and name of what Envoy is told, operation


def _policy(what: str, patched: Iterable[_Patches], options: GatewayOptions) -> Json:
    written = [
        {"type": kind, "name": name, "operation": operation} for each in patched for kind, name, operation in each
    ]
    spec = {"targetRef": gateway_target(options), "type": "JSONPatch", "jsonPatches": written}
    name = own_name(options.gateway, what)
    return made("EnvoyPatchPolicy", name, spec, namespace=options.namespace, gateway=options.gateway)


def _called(listeners: Iterable[str], options: GatewayOptions) -> list[str]:
    """What Envoy Gateway calls each listener, or its routes."""
    return [f"{options.namespace}/{options.gateway}/{listener}" for listener in dict.fromkeys(listeners)]


def _hosts_with_bodies(plan: Plan) -> list[str]:
    return [host.name for host in plan.hosts if any(route.reads_body for route in host.routes)]


def _add(json_path: str, value: Any, path: str | None = None) -> Json:
    where = {"jsonPath": json_path} if path is None else {"jsonPath": json_path, "path": path}
    return {"op": "add", **where, "value": value}


def _meter(listener: str) -> _Patches:
    """Before all other filters, turned off: the one that reads JSON first, the one for events second."""
    return [
        (_LISTENER, listener, _add(_FILTERS, sse_filter(), "0")),
        (_LISTENER, listener, _add(_FILTERS, body_filter(), "0")),
    ]


def _settlement(listener: str, options: GatewayOptions) -> _Patches:
    """After Check and before the router: in front of Check it would not see where the call went."""
    settle = settle_filter(options.meter, timeout=SETTLE_TIMEOUT, gate=gate_client(options))
    return [(_LISTENER, listener, _add(_ROUTER, settle))]


def _hardened(listener: str, options: GatewayOptions) -> _Patches:
    """Who calls, how long headers may be, and what answers call themselves, as plain Envoy has it."""
    bounds = {
        "internal_address_config": {"cidr_ranges": [NOBODY]},
        "xff_num_trusted_hops": options.trusted_hops,
        "max_request_headers_kb": MAX_HEADERS_KB,
        "always_set_request_id_in_response": True,
        "server_header_transformation": "OVERWRITE",
        "server_name": SERVER_NAME,
        "strip_any_host_port": True,
        "common_http_protocol_options/max_headers_count": MAX_HEADERS,
    }
    return [(_LISTENER, listener, _add(_MANAGER, value, name)) for name, value in bounds.items()]


def _replies(listener: str) -> _Patches:
    """The answers that Envoy gives by itself, in JSON."""
    return [(_LISTENER, listener, _add(_MANAGER, {"mappers": local_replies()}, "local_reply_config"))]


def _told(listener: str) -> _Patches:
    """Check is told what was read of the body."""
    return [(_LISTENER, listener, _add(_CHECK, [REQUEST_NAMESPACE], "metadata_context_namespaces"))]


def _bodies(listener: str, options: GatewayOptions) -> _Patches:
    """Bodies are read on the routes of rules that say so, and on no other."""
    resource = "@.metadata.filter_metadata['envoy-gateway'].resources[0]"
    ours = f"{resource}.namespace == '{options.namespace}' && {resource}.name =~ /^{ROUTE_PREFIX}/"
    reading = f"{resource}.sectionName =~ /(^{ENTRY}[.]|[.]{READS_BODY}$)/"
    chosen = f"$.virtual_hosts[*].routes[?({ours} && {reading})]"
    return [
        (_ROUTES, listener, _add(chosen, settings, f"typed_per_filter_config/{name}"))
        for name, settings in body_filters_on().items()
    ]


def _gates(options: GatewayOptions) -> _Patches:
    """What leaving a gate out takes: to ask for its health by a name that it takes, and to heed the answer at once.

    Envoy would ask by the cluster's name, which is none, and less often while nobody calls; and its threads would hear
    of a change of health at most once a second.
    """
    client = gate_client(options)
    said = {
        "/health_checks/0/grpc_health_check/authority": client["authority"],
        "/health_checks/0/no_traffic_interval": HEALTH_INTERVAL,
        "/common_lb_config/update_merge_window": "0s",
    }
    operations = ({"op": "add", "path": path, "value": value} for path, value in said.items())
    return [(_CLUSTER, client["cluster_name"], operation) for operation in operations]
