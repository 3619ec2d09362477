"""A host's routes as rules of Gateway API. Pure.

Plain Envoy takes the first route that fits; Envoy Gateway the most particular match: exact paths, then the longest
prefix, then the one that asks for more headers. The plan's order gives the same answer, but for two things that are
mended here. A prefix of Gateway API matches the bare path too, which the plan leaves to somebody else: whoever has it
there gets it by an exact match. And of two equal matches the plan's first one is written, the other left out.

An openai publication has two rules for each of its routes: at the first its calls wait for Check, and nothing but a 404
is there; the other leads to the server, and wants the header by which Check names the publication. No caller can send
it: it is taken off every call before anything looks at it (``traffic``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauth.credentials.carriers import CREDENTIAL_HEADERS
from extauth.kserve.paths import NAMED_ROOT
from extauth.request.route_names import NAMED, checked_rule, entry_rule, named_rule, publication_rule
from publisher.addresses import is_address
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import GROUP, backend_refs, nobody_ref
from publisher.gateway.resources.naming import Json, content_name, digest, own_name
from publisher.plan import OPENAI_ROOT, Host, Injection, Route, Upstream

NOWHERE: Final = "closed"
"""The rule of a path that is nobody's. It names nothing, so Check answers 404."""

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and whose it is."""

    publication: str  # uid
    is_read: bool  # Check reads the bodies of the publication's calls
    has_credential: bool  # its servers get a header, so that its clusters are its own and named after its route
    rendered: Json


@dataclass(frozen=True, slots=True)
class HostRules:
    """All rules of a host."""

    host: str
    published: tuple[Rule, ...]  # in the plan's order
    entry: tuple[Json, ...]  # what calls match that the body decides; () where there are none
    closed: tuple[Json, ...]  # what calls match that nobody serves, and a prefix of ours would take
    by_path: tuple[Json, ...] = ()  # what calls match that name a model by the path, or ask for a server


def host_rules(host: Host, upstreams: Mapping[str, Upstream], options: GatewayOptions) -> HostRules:
    """Lay out a host's rules."""
    routes = _distinct(host, options)
    read = frozenset(route.publication for route in host.routes if route.reads_body)
    has_entry = host.openai and not any(_key(route) == (_PREFIX, OPENAI_ROOT, "") for route in routes)
    owners = {path: _around(path, routes) for path in _bare_paths(host, routes)}
    routes += [_at(path, owner) for path, owner in owners.items() if owner]
    bare = [path for path, owner in owners.items() if owner is None]
    named = [path for path in bare if any(one.below and path.startswith(f"{one.path}/") for one in host.entries)]
    left = [path for path in bare if path not in named]
    by_path = [_matching(_PREFIX if one.below else _EXACT, one.path) for one in host.entries]
    by_path += [_matching(_EXACT, path) for path in named]
    waiting = [path for path in left if has_entry and path.startswith(f"{OPENAI_ROOT}/")]
    asked = [_matching(_EXACT, path) | {"method": method} for path in waiting for method in _ASKING]
    entry = [*asked, _matching(_PREFIX, OPENAI_ROOT)] if has_entry else []
    return HostRules(
        host=host.name,
        published=tuple(_rules(routes, read, upstreams, options)),
        entry=tuple(entry),
        closed=tuple(_matching(_EXACT, path) for path in left),
        by_path=tuple(by_path),
    )


def own_host_name(options: GatewayOptions) -> str:
    """The filter that tells each of several servers its own name as Host."""
    return own_name(options.gateway, "own-host")


def credential_name(injection: Injection, options: GatewayOptions) -> str:
    """The filter that gives servers the header that they want."""
    return content_name("credential", options.gateway, injection.header, injection.secret)


def no_model_name(options: GatewayOptions) -> str:
    """The filter that answers a call for which Check named a model that is not served here yet."""
    return own_name(options.gateway, "no-model")


def entry(host: str, matches: Sequence[Json], options: GatewayOptions) -> Json:
    """The rule where calls wait that the body decides: Check names the publication, or this is the end of it."""
    return _waiting(entry_rule(host), matches, options)


def entry_by_path(host: str, matches: Sequence[Json], options: GatewayOptions) -> Json:
    """The rule where calls wait that name a model by the path: Check writes it anew, or answers."""
    return _waiting(named_rule(host), matches, options)


def closed(matches: Sequence[Json], options: GatewayOptions) -> Json:
    """The rule of paths that nobody serves."""
    return _answered(NOWHERE, matches, options)


def _answered(name: str, matches: Sequence[Json], options: GatewayOptions) -> Json:
    return {"name": name, "matches": list(matches), "filters": [_by_filter(no_model_name(options))]}


def _waiting(name: str, matches: Sequence[Json], options: GatewayOptions) -> Json:
    """The same of a rule where calls wait; but pages in browsers could read no answer of a rule that answers by itself.

    Envoy's CORS filter looks at no such rule, and by this one it decides for the whole call. So where pages may call,
    it leads to a server that nobody has; no key would go there either. In files both fields are said (``manifests``).
    """
    if options.origins:
        filters = [_without_credentials()]
        return {"name": name, "matches": list(matches), "filters": filters, "backendRefs": [nobody_ref(options)]}
    return _answered(name, matches, options) | ({"backendRefs": []} if options.from_files else {})


def _without_credentials(**more: Any) -> Json:
    """The key ends here, whatever Check answers."""
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {**more, "remove": list(CREDENTIAL_HEADERS)}}


def _by_filter(name: str) -> Json:
    """How a rule points to an HTTPRouteFilter of ours."""
    return {"type": "ExtensionRef", "extensionRef": {"group": GROUP, "kind": "HTTPRouteFilter", "name": name}}


_ASKING: Final = ("GET", "HEAD")
"""The methods by which a host's models are asked for by name, which Check answers. A call by any other would be moved
by its body to a server for which no match is more particular than this one: nobody serves it."""

_EXACT: Final = "Exact"
_PREFIX: Final = "PathPrefix"


def _distinct(host: Host, options: GatewayOptions) -> list[Route]:
    """The routes to write, the first of those that match the same."""
    first: dict[_Key, Route] = {}
    for route in host.routes:
        if not (route.chosen_by_body and options.ai_gateway):  # there ``ai_routes`` has them
            first.setdefault(_key(route), route)
    return list(first.values())


def _bare_paths(host: Host, routes: Sequence[Route]) -> list[str]:
    """The paths that a prefix takes along although the plan does not: sorted, each once."""
    exact = {route.path for route in routes if not route.below}
    below = {route.path for route in routes if route.below and route.path != NAMED_ROOT}
    below |= {one.path for one in host.entries if one.below} | ({OPENAI_ROOT} if host.openai else set())
    return sorted(below - exact - {one.path for one in host.entries if not one.below})


def _around(path: str, routes: Sequence[Route]) -> Route | None:
    """Whose prefix a path lies below, the longest of them."""
    around = (one for one in routes if one.below and not one.chosen and path.startswith(f"{one.path}/"))
    return next(around, None)


def _at(path: str, around: Route) -> Route:
    """A path below a route, as a route of its own."""
    rest = path.removeprefix(f"{around.path}/")
    name, rewrite = f"{around.name}-{digest(path)}", f"{around.rewrite}{rest}" if around.rewrite else ""
    return dataclasses.replace(around, name=name, path=path, below=False, rewrite=rewrite)


def _key(route: Route) -> _Key:
    return (_PREFIX if route.below else _EXACT, route.path, _header(route))


def _header(route: Route) -> str:
    return route.publication if route.chosen else ""


def _rules(
    routes: Iterable[Route], read: Collection[str], upstreams: Mapping[str, Upstream], options: GatewayOptions
) -> Iterator[Rule]:
    """All rules of these routes; of two that match the same the first. ``read``: whose calls' bodies Check reads."""
    seen: set[_Key] = set()
    for route in routes:
        upstream, is_read = upstreams[route.publication], route.publication in read
        for key, rendered in _of_route(route, upstream, options, waits=is_read):
            if key not in seen:
                seen.add(key)
                yield Rule(route.publication, is_read, upstream.injection is not None, rendered)


def _of_route(route: Route, upstream: Upstream, options: GatewayOptions, *, waits: bool) -> Iterator[tuple[_Key, Json]]:
    kind, part = _PREFIX if route.below else _EXACT, route.name.rpartition("/")[2].replace("_", "-")
    name = publication_rule(route.publication, part)
    if route.waits:
        name = publication_rule(route.publication, NAMED if part == NAMED else f"{NAMED}.{part}")
        yield (kind, route.path, ""), _waiting(name, [_matching(kind, route.path)], options)
        return
    if waits and not route.chosen:
        yield (kind, route.path, ""), _waiting(name, [_matching(kind, route.path)], options)
        name = checked_rule(route.publication, part)
    match = _matching(kind, route.path)
    if waits or route.chosen:
        match["headers"] = [{"type": "Exact", "name": PUBLICATION_HEADER, "value": route.publication}]
    yield (
        (kind, route.path, route.publication if waits or route.chosen else ""),
        _leading(name, match, route, upstream, options),
    )


def _leading(name: str, match: Json, route: Route, upstream: Upstream, options: GatewayOptions) -> Json:
    """A rule that leads to the publication's server."""
    return {
        "name": name,
        "matches": [match],
        "filters": [
            _headers(route),
            *_rewriting(route, upstream),
            *_each_its_own_host(upstream, options),
        ],
        "backendRefs": _servers(upstream, options),
        "timeouts": {"request": f"{route.longest_s}s"},
    }


def _matching(kind: str, path: str) -> Json:
    return {"path": {"type": kind, "value": path}}


def _headers(route: Route) -> Json:
    """The key ends here; the server is told whose call it is."""
    return _without_credentials(set=[{"name": PUBLICATION_HEADER, "value": route.publication}])


def _rewriting(route: Route, upstream: Upstream) -> list[Json]:
    rewrite: dict[str, Any] = {}
    hostnames = {target.hostname for target in upstream.targets}
    if len(hostnames) == 1 and not any(map(is_address, hostnames)):  # Gateway API has no word for an address or a port
        rewrite["hostname"] = hostnames.pop()
    matched = f"{route.path}/" if route.below else route.path
    if route.rewrite != matched:
        rewrite["path"] = _new_path(route)
    return [{"type": "URLRewrite", "urlRewrite": rewrite}] if rewrite else []


def _each_its_own_host(upstream: Upstream, options: GatewayOptions) -> list[Json]:
    """For several servers of different names, which Gateway API has no word for either."""
    hostnames = {target.hostname for target in upstream.targets}
    return [_by_filter(own_host_name(options))] if len(hostnames) > 1 else []


def _servers(upstream: Upstream, options: GatewayOptions) -> list[Json]:
    """The servers, and of those that want a header the filter that writes it from a Secret of the operator's.

    At the server and not at the rule: there Envoy Gateway makes it a filter of the server's cluster, behind the router.
    One of the rule would be a filter of the listener, on or off by the route of before Check: that of an openai call is
    another than the one by which it leaves.
    """
    refs = backend_refs(upstream, options)
    if upstream.injection is None:
        return refs
    return [ref | {"filters": [_by_filter(credential_name(upstream.injection, options))]} for ref in refs]


def _new_path(route: Route) -> Json:
    if route.below:
        return {"type": "ReplacePrefixMatch", "replacePrefixMatch": route.rewrite.rstrip("/") or "/"}
    return {"type": "ReplaceFullPath", "replaceFullPath": route.rewrite}
