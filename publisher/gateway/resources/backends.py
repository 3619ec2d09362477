"""Model servers as Backends. Pure.

A Backend is named after what it says, so a server that moves is a new object: Envoy Gateway's file provider merges a
changed object into the old one and keeps what was taken out. With EnvoyProxy's ``mergeBackends`` the object's name is
its cluster's too, so a cluster never comes to mean another server, however rules move among routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final

from publisher.addresses import is_address
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import Json, content_name, made, own_name
from publisher.plan import Plan, Target, Upstream

GROUP: Final = "gateway.envoyproxy.io"
NOBODY: Final = "nobody.invalid"
"""A name that has no address anywhere (RFC 2606): Envoy answers 503 by itself."""


def backends(plan: Plan, options: GatewayOptions) -> list[Json]:
    """One Backend for each server, by name; publications of one server share it."""
    by_name = {backend_name(target, options): target for upstream in plan.upstreams for target in upstream.targets}
    return [_backend(name, by_name[name], options) for name in sorted(by_name)]


def nobody(options: GatewayOptions) -> list[Json]:
    """The server that nobody has: where calls of pages in browsers wait for Check, where there may be any."""
    if not options.origins:
        return []
    spec = {"endpoints": [endpoint(NOBODY, 1)]}
    return [made("Backend", _nobodys_name(options), spec, namespace=options.namespace, gateway=options.gateway)]


def nobody_ref(options: GatewayOptions) -> Json:
    """How a rule points to it."""
    return backend_ref(_nobodys_name(options))


def _nobodys_name(options: GatewayOptions) -> str:
    return own_name(options.gateway, "nobody")


def backend_name(target: Target, options: GatewayOptions) -> str:
    """The Backend of a server."""
    return content_name("server", options.gateway, target.tls, target.hostname, target.port)


def backend_ref(name: str) -> Json:
    """How a rule or a policy points to a Backend of ours."""
    return {"group": GROUP, "kind": "Backend", "name": name}


def backend_refs(upstream: Upstream, options: GatewayOptions) -> list[Json]:
    """How a rule points to a publication's servers, to several by their weights."""
    refs = [backend_ref(backend_name(target, options)) for target in upstream.targets]
    return refs if len(refs) == 1 else weighted(refs, upstream)


def weighted(refs: Iterable[Json], upstream: Upstream) -> list[Json]:
    """References to each of a publication's servers, with its share of the calls."""
    return [ref | {"weight": target.weight} for ref, target in zip(refs, upstream.targets, strict=True)]


def endpoint(hostname: str, port: int) -> Json:
    """Where a server is, by address (whole: a Backend's schema knows not every short form of IPv6) or by name."""
    if is_address(hostname):
        return {"ip": {"address": ip_address(hostname).exploded, "port": port}}
    return {"fqdn": {"hostname": hostname, "port": port}}


def _backend(name: str, target: Target, options: GatewayOptions) -> Json:
    spec: dict[str, Any] = {"endpoints": [endpoint(target.hostname, target.port)]}
    if target.tls:
        spec["tls"] = {"wellKnownCACertificates": "System", "sni": target.hostname}
    return made("Backend", name, spec, namespace=options.namespace, gateway=options.gateway)
