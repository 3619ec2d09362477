"""What Envoy Gateway's own resources have no words for, as patches of what it tells Envoy. Pure.

None of them is needed to close the gateway or to count calls. Each concern is a policy of its own: one that Envoy
Gateway cannot apply leaves the others in force. A patch without anything to match makes its policy look broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from publisher.envoy.bootstrap import NOBODY, SERVER_NAME
from publisher.envoy.endings import ENDINGS, PROMPT
from publisher.envoy.listener.replies import MAX_HEADERS, MAX_HEADERS_KB, local_replies
from publisher.gateway.gate import HEALTH_INTERVAL, are_several, gate_name
from publisher.gateway.options import GatewayOptions, MeterBy
from publisher.gateway.resources.metering import meter_filter
from publisher.gateway.resources.naming import NO_LABELS, Json, made, own_name
from publisher.gateway.resources.security import bodies_name
from publisher.gateway.resources.targets import READS, gateway_target
from publisher.plan import Plan

_LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
_CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

_MANAGER: Final = "$..filters[?(@.name=='envoy.filters.network.http_connection_manager')].typed_config"
"""How calls are read, of every filter chain: http has one of its own, each https hostname another."""
_ROUTER: Final = "$..http_filters[?(@.name=='envoy.filters.http.router')]"
_LOG: Final = f"$..access_log[?(@.typed_config.common_config.log_name=='{ENDINGS}')].typed_config.common_config"


def patches(options: GatewayOptions) -> list[Json]:
    """What holds whatever is published."""
    if not options.patches:
        return []
    listeners = _called(options.listeners, options)
    made_ones = [
        _policy("hardened", (_hardened(name, options) for name in listeners), options),
        _policy("replies", [_replies(listener, options) for listener in listeners], options),
        _policy("endings", map(_prompt, listeners), options, labels=READS),
    ]
    if options.meter is MeterBy.PATCH:
        made_ones.append(_policy("meter", map(_metered, listeners), options, labels=READS))
    return made_ones


def gates_patch(plan: Plan, options: GatewayOptions) -> list[Json]:
    """What leaving a gate out takes; of a plan without routes nobody asks a gate."""
    if not options.patches or not plan.hosts or not are_several(options.gate):
        return []
    return [_policy("gates", [_gates(name, options) for name in (gate_name(options), bodies_name(options))], options)]


_Patches = Sequence[tuple[str, str, Json]]  # type and name of what Envoy is told, operation


def _policy(
    what: str, patched: Iterable[_Patches], options: GatewayOptions, *, labels: Mapping[str, str] = NO_LABELS
) -> Json:
    written = [
        {"type": kind, "name": name, "operation": operation} for each in patched for kind, name, operation in each
    ]
    spec = {"targetRef": gateway_target(options), "type": "JSONPatch", "jsonPatches": written}
    where = {"namespace": options.namespace, "gateway": options.gateway}
    return made("EnvoyPatchPolicy", own_name(options.gateway, what), spec, labels=labels, **where)


def _called(listeners: Iterable[str], options: GatewayOptions) -> list[str]:
    """What Envoy Gateway calls each listener."""
    return [f"{options.namespace}/{options.gateway}/{listener}" for listener in dict.fromkeys(listeners)]


def _add(json_path: str, value: Any, path: str | None = None) -> Json:
    where = {"jsonPath": json_path} if path is None else {"jsonPath": json_path, "path": path}
    return {"op": "add", **where, "value": value}


def _metered(listener: str) -> _Patches:
    """Right before the router, so after Check: it looks at answers to calls that have a reservation."""
    return [(_LISTENER, listener, _add(_ROUTER, meter_filter()))]


def _prompt(listener: str) -> _Patches:
    """Endings are sent at once, and elsewhere where a stream cannot be opened, as plain Envoy does it.

    Where the proxy's log tells no endings there is nothing to match, which whoever publishes models should know.
    """
    return [(_LISTENER, listener, _add(_LOG, value, name)) for name, value in PROMPT.items()]


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


def _replies(listener: str, options: GatewayOptions) -> _Patches:
    """The answers that Envoy gives by itself, in JSON."""
    mappers = local_replies(options.max_body_bytes)
    return [(_LISTENER, listener, _add(_MANAGER, {"mappers": mappers}, "local_reply_config"))]


def _gates(policy: str, options: GatewayOptions) -> _Patches:
    """To ask a policy's gates for their health by a name that they take, and to heed the answer at once.

    Envoy would ask by the cluster's name, which is none, and less often while nobody calls; and its threads would hear
    of a change of health at most once a second.
    """
    said = {
        "/health_checks/0/grpc_health_check/authority": f"{gate_name(options)}.{options.namespace}",
        "/health_checks/0/no_traffic_interval": HEALTH_INTERVAL,
        "/common_lb_config/update_merge_window": "0s",
    }
    operations = ({"op": "add", "path": path, "value": value} for path, value in said.items())
    return [(_CLUSTER, _cluster(policy, options), operation) for operation in operations]


def _cluster(policy: str, options: GatewayOptions) -> str:
    """What Envoy Gateway calls the cluster of a policy's gates; where it reads files it has forgotten the kind."""
    kind = "" if options.from_files else "securitypolicy"
    return f"{kind}/{options.namespace}/{policy}/extauth/0"
