"""The gateway itself, where nobody else owns it: class, proxy and listeners, for an Envoy Gateway without a cluster.

Pure. A change of the proxy takes effect only when Envoy Gateway starts anew: Envoy is started with its ``bootstrap``
and ``drainTimeout``.
"""

from __future__ import annotations

import json
from typing import Any, Final

from publisher.envoy.listener.overload import heap_bounds
from publisher.gateway.endings import access_log
from publisher.gateway.gate import secret_ref
from publisher.gateway.options import GatewayOptions, HostInfrastructure
from publisher.gateway.resources.naming import Json, made

CONTROLLER: Final = "gateway.envoyproxy.io/gatewayclass-controller"


def infrastructure(options: GatewayOptions) -> list[Json]:
    """GatewayClass, EnvoyProxy and Gateway, where they are ours to write."""
    if options.host is None:
        return []
    parts = {
        "GatewayClass": _class(options),
        "EnvoyProxy": _proxy(options.host, options),
        "Gateway": _gateway(options.host, options),
    }
    return [
        made(kind, options.gateway, spec, namespace=options.namespace, gateway=options.gateway)
        for kind, spec in parts.items()
    ]


def _class(options: GatewayOptions) -> Json:
    parameters = {
        "group": "gateway.envoyproxy.io",
        "kind": "EnvoyProxy",
        "name": options.gateway,
        "namespace": options.namespace,
    }
    return {"controllerName": CONTROLLER, "parametersRef": parameters}


def _proxy(host: HostInfrastructure, options: GatewayOptions) -> Json:
    """How Envoy is run, and what it needs for our resources to mean what they say.

    A cluster for each server and not for each rule: else a rule that moves would lead, for a moment, to another
    publication's server. Endings that are told; streams that outlive a change.
    """
    added = {"overload_manager": heap_bounds(host.max_heap_bytes)}
    return {
        "provider": {"type": "Host", "host": {"envoyVersion": host.envoy_version}},
        "mergeBackends": {},
        "telemetry": {"accessLog": access_log(options)},
        "bootstrap": {"type": "Merge", "value": json.dumps(added, sort_keys=True)},
        "shutdown": {"drainTimeout": f"{host.drain_s}s"},
    }


def _gateway(host: HostInfrastructure, options: GatewayOptions) -> Json:
    listeners = [_listener("http", "HTTP", host.http_port)]
    if host.https_port is not None and host.certificates:
        tls = {"mode": "Terminate", "certificateRefs": [secret_ref(one) for one in host.certificates]}
        listeners.append(_listener("https", "HTTPS", host.https_port, tls=tls))
    return {"gatewayClassName": options.gateway, "listeners": listeners}


def _listener(name: str, protocol: str, port: int, **more: Any) -> Json:
    """Only routes of our own namespace attach: nobody else's are closed by our policy's name for them."""
    allowed = {"namespaces": {"from": "Same"}}
    return {"name": name, "protocol": protocol, "port": port, "allowedRoutes": allowed, **more}
