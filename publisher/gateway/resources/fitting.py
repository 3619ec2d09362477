"""Which publications Envoy Gateway cannot be given, and why. Pure.

Gateway API names rules, objects and hosts more narrowly than the plan does. What does not fit is refused in the plan's
own manner, and the others go on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Final

from extauth.request.route_names import ENTRY, MAX_RULE, NAMED, entry_rule, named_rule
from publisher.addresses import is_address
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import is_name
from publisher.plan import Host, Injection, Plan

_HOST_ROOM: Final = MAX_RULE - max(len(entry_rule("")), len(named_rule("")))
_LABEL: Final = 63
NO_GRPC: Final = "protocol: gRPC is served by plain Envoy only"
_NUMBER: Final = re.compile(r"(.*\.)?[0-9]+")
"""Ends in digits: an address to whoever resolves names, or nothing at all."""


def fitting(plan: Plan, options: GatewayOptions) -> Plan:
    """The plan without what Envoy Gateway has no name for, which is refused with a reason."""
    faults = {uid: fault for host in plan.hosts for uid in _uids(host) if (fault := _fault(uid, host))}
    of_grpc = (route.publication for host in plan.hosts for route in host.routes if route.grpc)
    faults |= dict.fromkeys(of_grpc, NO_GRPC)
    unnamed = (one.publication for one in plan.upstreams if not all(is_server(to.hostname) for to in one.targets))
    faults |= dict.fromkeys(unnamed, "url: must name a host in lower case")
    wanting = ((one.publication, one.injection) for one in plan.upstreams if one.injection)
    faults |= {uid: fault for uid, injection in wanting if (fault := _credential_fault(injection, options))}
    return without(plan, faults) if faults else plan


def without(plan: Plan, faults: dict[str, str]) -> Plan:
    """The plan with these publications refused."""
    hosts = (_left(host, faults) for host in plan.hosts)
    return Plan(
        upstreams=tuple(upstream for upstream in plan.upstreams if upstream.publication not in faults),
        hosts=tuple(host for host in hosts if host.routes),
        refused={**plan.refused, **faults},
    )


def is_server(hostname: str) -> bool:
    """Whether a Backend can say where this is: an address, or a name that nobody takes for one."""
    return is_address(hostname) or (is_name(hostname) and _NUMBER.fullmatch(hostname) is None)


def _credential_fault(injection: Injection, options: GatewayOptions) -> str:
    """Why a gateway cannot give servers the header that they want; "" where it can."""
    if options.ai_gateway:
        return "upstreamAuth: Envoy AI Gateway has BackendSecurityPolicy for that; take it off the model"
    return "" if injection.secret else "upstreamAuth: an Envoy Gateway has its value from a Secret: name it (secret)"


def _left(host: Host, faults: Collection[str]) -> Host:
    routes = tuple(route for route in host.routes if route.publication not in faults)
    return dataclasses.replace(
        host,
        routes=routes,
        openai=any(route.chosen_by_body for route in routes),
        kserve=any(route.chosen and not route.chosen_by_body for route in routes),
    )


def _uids(host: Host) -> set[str]:
    return {route.publication for route in host.routes}


def _fault(uid: str, host: Host) -> str | None:
    if uid in {ENTRY, NAMED} or not is_name(uid, longest=_LABEL):
        return f"uid: must be lower-case letters, digits and dashes, and not {ENTRY} or {NAMED}"
    if len(host.name) > _HOST_ROOM:
        return f"host: must be at most {_HOST_ROOM} characters on Envoy Gateway"
    return None
