"""A plan's routes in Envoy's words, and the one route configuration that holds them. Pure.

What a call's route says is said here: its server, how long it may take, what Check is told of it. Which of a host's
routes takes a call is found by a tree (``matching``); every route has its own match all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from catalog.inference import METHODS, MODEL_HEADERS
from catalog.inference import ROOT as GRPC_ROOT
from extauth.credentials.carriers import CREDENTIAL_HEADERS
from extauth.request.packed import UNPACKS
from extauth.request.routed import BY_PATH, GRPC
from publisher.browsers import SERVERS_HEADERS, browser_policy
from publisher.envoy.bodies import UNPACKING, large_calls, large_way, packed_calls, without_body
from publisher.envoy.files import (
    METER_FILTER,
    NO_CLUSTER,
    PUBLICATION_HEADER,
    REWRITE_FILTER,
    ROUTE_NAMESPACE,
    ROUTES_NAME,
    Json,
    Resources,
    cluster_name,
    compact,
    versioned,
)
from publisher.envoy.matching import Branches, Taken, tree
from publisher.plan import OPENAI_ROOT, Host, Plan, Route

Aliases = Mapping[str, Sequence[str]]
"""Further names of a host, by its own: names or addresses of IPv4, without a port."""
NO_ALIASES: Final[Aliases] = {}

_ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_ROUTE_LIST: Final = "type.googleapis.com/envoy.config.route.v3.RouteList"
_FILTER_CONFIG: Final = "type.googleapis.com/envoy.config.route.v3.FilterConfig"


def routes(
    plan: Plan, *, origins: Sequence[str] = (), aliases: Aliases = NO_ALIASES, taken: Taken | None = None
) -> Resources:
    """The one route configuration. A host or path that nobody published has no route, hence no way to any server.

    ``origins``: of pages that may call from a browser. ``aliases``: further names of hosts, but for those on which
    something is published by itself. ``taken``: what gives the text of a key's routes, for those who remember it.
    """
    policy = _for_browsers(origins)
    own = {host.name for host in plan.hosts}
    named = ((host, [one for one in aliases.get(host.name, ()) if one not in own]) for host in plan.hosts)
    hosts = ",".join(_virtual_host(host, further, policy, taken or routes_text) for host, further in named)
    common = {
        "@type": _ROUTES,
        "name": ROUTES_NAME,
        "request_headers_to_remove": CREDENTIAL_HEADERS,
        "response_headers_to_remove": SERVERS_HEADERS,
        "validate_clusters": False,
    }
    return versioned({ROUTES_NAME: f'{compact(common)[:-1]},"virtual_hosts":[{hosts}]}}'})


def routes_text(found: tuple[Route, ...]) -> str:
    """The match of a key in a host's tree: these routes in their order, as JSON."""
    return _list_text([rendered for route in found for rendered in _routes(route)])


def _list_text(found: Sequence[Json]) -> str:
    """The first of these that matches takes the call."""
    return compact({"action": {"name": "route", "typed_config": {"@type": _ROUTE_LIST, "routes": found}}})


def _virtual_host(host: Host, further: Sequence[str], policy: Json, taken: Taken) -> str:
    branches = Branches(
        unnamed=_list_text(_by_bodies(_entry(host))) if host.openai else "",
        entries=host.entries,
        waiting=_list_text([_entry_by_path(host)]) if host.entries else "",
    )
    for route in host.routes:
        branches.add(route)
    common = compact({"name": host.name, "domains": [host.name, *further], **policy})
    return f'{common[:-1]},"matcher":{tree(branches, taken, header=PUBLICATION_HEADER)}}}'


def _for_browsers(origins: Sequence[str]) -> Json:
    policy = browser_policy(origins)
    return {"typed_per_filter_config": policy} if policy else {}


def _routes(route: Route) -> list[Json]:
    """What a route is to Envoy: three where a body is read before Check, by how it comes."""
    if route.waits:
        return [_waiting(route)]
    rendered = _route(route)
    if not route.reads_body:
        rendered["typed_per_filter_config"] = without_body()
        return [rendered]
    rendered["typed_per_filter_config"] = _reading()
    return [rendered] if route.chosen else _by_bodies(rendered)


def _by_bodies(rendered: Json) -> list[Json]:
    """A route whose calls' bodies the gate reads; before it one for those that are large, and one for packed ones.

    What is packed may be large once it is unpacked, so it goes the way of the large. All else is the same.
    """
    (namespace,) = rendered["metadata"]["filter_metadata"].items()
    unpacks = {"filter_metadata": {namespace[0]: namespace[1] | {UNPACKS: "yes"}}}
    filters = rendered["typed_per_filter_config"] | large_way()
    large = rendered | {"match": rendered["match"] | {"headers": large_calls()}, "typed_per_filter_config": filters}
    packed = large | {
        "match": rendered["match"] | {"headers": packed_calls()},
        "metadata": unpacks,
        "typed_per_filter_config": filters | filters_on(*UNPACKING),
    }
    return [packed, large, rendered]


def _route(route: Route) -> Json:
    return {
        "name": route.name,
        "match": _match(route),
        "metadata": _metadata(publication=route.publication, **({GRPC: "yes"} if route.grpc else {})),
        "route": _action(route),
        "request_headers_to_add": [
            {
                "header": {"key": PUBLICATION_HEADER, "value": route.publication},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _match(route: Route) -> Json:
    if route.grpc:
        return _grpc_match(route)
    match: Json = {"prefix": f"{route.path}/"} if route.below else {"path": route.path}
    if route.chosen:
        match["headers"] = [{"name": PUBLICATION_HEADER, "string_match": {"exact": route.publication}}]
    return match


def _grpc_match(route: Route) -> Json:
    """The protocol's methods and no other of the server's, whether or not a call is gRPC: the gate says so."""
    service, methods = GRPC_ROOT.replace(".", r"\."), "|".join(METHODS)
    match: Json = {"safe_regex": {"regex": f"{service}/({methods})"}}
    if not route.called_as:
        match["headers"] = [{"name": name, "present_match": True, "invert_match": True} for name in MODEL_HEADERS]
    return match


def _action(route: Route) -> Json:
    action: Json = {
        "cluster": cluster_name(route.publication),
        "timeout": "0s",
        "idle_timeout": f"{route.longest_s}s",
        "max_stream_duration": {"max_stream_duration": f"{route.longest_s}s"},
        "auto_host_rewrite": True,
        "append_x_forwarded_host": True,
    }
    if route.grpc:  # the caller's deadline, which is never longer than ours
        action["max_stream_duration"]["grpc_timeout_header_max"] = f"{route.longest_s}s"
    matched = f"{route.path}/" if route.below else route.path
    if route.rewrite != matched:
        action["prefix_rewrite"] = route.rewrite
    return action


def _entry(host: Host) -> Json:
    """Where calls wait that the body decides: Check names the publication, or a 404 is the end of it.

    No direct response, which Envoy would not let pages in browsers read.
    """
    return {
        "name": f"{host.name}/openai",
        "match": {"prefix": f"{OPENAI_ROOT}/"},
        "metadata": _metadata(openai_host=host.name),
        "route": {"cluster": NO_CLUSTER, "cluster_not_found_response_code": "NOT_FOUND"},
        "typed_per_filter_config": _reading(),
    }


def _waiting(route: Route) -> Json:
    """Where calls wait that name one publication's model below its path: Check writes the path anew, or answers."""
    metadata = _metadata(publication=route.publication, **{BY_PATH: "yes"})
    return _at_no_server(route.name, _match(route), metadata)


def _entry_by_path(host: Host) -> Json:
    """Where calls wait that name a model by the path, wherever it stands under."""
    return _at_no_server(f"{host.name}/kserve", {"prefix": "/"}, _metadata(openai_host=host.name, **{BY_PATH: "yes"}))


def _at_no_server(name: str, match: Json, metadata: Json) -> Json:
    """A route whose calls' bodies are no matter of Check's."""
    return {
        "name": name,
        "match": match,
        "metadata": metadata,
        "route": {"cluster": NO_CLUSTER, "cluster_not_found_response_code": "NOT_FOUND"},
        "typed_per_filter_config": without_body(),
    }


def _metadata(**fields: str) -> Json:
    return {"filter_metadata": {ROUTE_NAMESPACE: fields}}


def _reading() -> Json:
    """What a route says whose calls' bodies Check reads.

    All may say what the server does not know: ``TENANT/NAME`` at least, and an alias from its commit on, which no new
    route is waited for.
    """
    return filters_on(METER_FILTER, REWRITE_FILTER)


def filters_on(*names: str) -> Json:
    """What a route says that turns these filters on."""
    return {name: {"@type": _FILTER_CONFIG, "config": {}} for name in names}
