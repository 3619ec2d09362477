"""Openai models as routes of Envoy AI Gateway, which then counts an answer's tokens itself. Pure.

They stand in the place of the rules that the body decides: Check names the publication, and the header leads here. Held
to the form of its CRDs only; no Envoy AI Gateway was ever run with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from extauth.request.route_names import ROUTE_PREFIX, publication_rule
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import backend_name, backend_ref, weighted
from publisher.gateway.resources.naming import Json, content_name, made
from publisher.plan import Host, Plan, Route, Upstream

MAX_RULES: Final = 15
"""Most rules of an AIGatewayRoute: one less than of the HTTPRoute that is made of it."""

COSTS: Final = [
    ("llm_total_token", "TotalToken"),
    ("llm_input_token", "InputToken"),
    ("llm_output_token", "OutputToken"),
]
"""What is counted of an answer, in the metadata ``io.envoy.ai_gateway`` (``--usage-metadata``)."""


def ai_routes(plan: Plan, options: GatewayOptions) -> list[Json]:
    """AIServiceBackends, then AIGatewayRoutes, where they are wanted; a plan that fits (``fitting``)."""
    if not options.ai_gateway:
        return []
    upstreams = {upstream.publication: upstream for upstream in plan.upstreams}
    chosen = [(host, [route for route in host.routes if route.chosen_by_body]) for host in plan.hosts]
    ours = [upstreams[route.publication] for _, routes in chosen for route in routes]
    used = sorted({backend_name(target, options) for upstream in ours for target in upstream.targets})
    routes = [_route(name, host, rules, upstreams, options) for name, host, rules in _packed(chosen, options)]
    return [*(_backend(name, options) for name in used), *routes]


def _packed(
    chosen: Sequence[tuple[Host, Sequence[Route]]], options: GatewayOptions
) -> Iterator[tuple[str, Host, Sequence[Route]]]:
    for host, routes in chosen:
        if options.per_publication_routes:
            yield from ((f"{ROUTE_PREFIX}ai-{route.publication}", host, [route]) for route in routes)
        else:
            name = content_name("ai", options.gateway, host.name)
            starts = range(0, len(routes), MAX_RULES)
            yield from ((f"{name}-{start}", host, routes[start : start + MAX_RULES]) for start in starts)


def _backend(name: str, options: GatewayOptions) -> Json:
    spec = {"schema": {"name": "OpenAI"}, "backendRef": backend_ref(name)}
    return made("AIServiceBackend", name, spec, namespace=options.namespace, gateway=options.gateway)


def _route(
    name: str, host: Host, routes: Sequence[Route], upstreams: dict[str, Upstream], options: GatewayOptions
) -> Json:
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": options.gateway}
    spec = {
        "parentRefs": [parent],
        "hostnames": [host.name],
        "llmRequestCosts": [{"metadataKey": key, "type": kind} for key, kind in COSTS],
        "rules": [_rule(route, upstreams[route.publication], options) for route in routes],
    }
    return made("AIGatewayRoute", name, spec, namespace=options.namespace, gateway=options.gateway)


def _rule(route: Route, upstream: Upstream, options: GatewayOptions) -> Json:
    refs = [{"name": backend_name(target, options)} for target in upstream.targets]
    header = {"type": "Exact", "name": PUBLICATION_HEADER, "value": route.publication}
    return {
        "name": publication_rule(route.publication, "body"),
        "matches": [{"headers": [header]}],
        "backendRefs": refs if len(refs) == 1 else weighted(refs, upstream),
        "timeouts": {"request": f"{route.longest_s}s"},
    }
