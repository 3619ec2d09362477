"""A host's routes as rules of Gateway API. Pure.

Plain Envoy takes the first route that fits; Envoy Gateway the most particular match: exact paths, then the longest
prefix, then the one that asks for more headers. The plan's order gives the same answer, but for two things that are
mended here. A prefix of Gateway API matches the bare path too, which the plan leaves to somebody else: whoever has it
there gets it by an exact match. And of two equal matches the plan's first one is written, the other left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauth.route_names import entry_rule, publication_rule, reading_rule
from publisher.envoy_files import CREDENTIAL_HEADERS, PUBLICATION_HEADER
from publisher.gateway.backends import GROUP, backend_name, backend_ref
from publisher.gateway.fitting import is_address
from publisher.gateway.naming import Json
from publisher.gateway.options import GatewayOptions
from publisher.plan import OPENAI_ROOT, Host, Route, Upstream

NOWHERE: Final = "closed"
"""The rule of a path that is nobody's. It names nothing, so Check answers 404."""

NO_MODEL: Final = "tollkeeper-no-model"
"""The filter that answers a call for which Check named a model that is not served here yet."""

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and whose it is."""

    publication: str  # uid; "": the host's own
    rendered: Json


@dataclass(frozen=True, slots=True)
class HostRules:
    """All rules of a host."""

    host: str
    published: tuple[Rule, ...]  # in the plan's order
    entry: tuple[Json, ...]  # what calls match that the body decides; () where there are none
    closed: tuple[Json, ...]  # what calls match that nobody serves, and a prefix of ours would take


def host_rules(host: Host, upstreams: Mapping[str, Upstream], options: GatewayOptions) -> HostRules:
    """Lay out a host's rules. Without patches no body is read, so no call can be decided by one."""
    taken: set[_Key] = set()
    published = []
    for route in host.routes:
        key = _key(route)
        if key in taken or (route.chosen_by_body and not options.patches):
            continue
        taken.add(key)
        published.append(Rule(route.publication, _rule(route, upstreams[route.publication], options)))
    has_entry = host.openai and (_PREFIX, OPENAI_ROOT, "") not in taken
    bare = list(_bare_paths(host, taken))
    waiting = [path for path in bare if has_entry and path.startswith(f"{OPENAI_ROOT}/")]
    entry = [*(_matching(_EXACT, path) for path in waiting), _matching(_PREFIX, OPENAI_ROOT)] if has_entry else []
    closed = [_matching(_EXACT, path) for path in bare if path not in waiting]
    return HostRules(host.name, tuple(published), tuple(entry), tuple(closed))


def entry(host: str, matches: Sequence[Json]) -> Json:
    """The rule where calls wait that the body decides: Check names the publication, or a 404 is the end of it."""
    return _answered(entry_rule(host), matches)


def closed(matches: Sequence[Json]) -> Json:
    """The rule of paths that nobody serves."""
    return _answered(NOWHERE, matches)


def _answered(name: str, matches: Sequence[Json]) -> Json:
    reference = {"group": GROUP, "kind": "HTTPRouteFilter", "name": NO_MODEL}
    return {
        "name": name,
        "matches": list(matches),
        "filters": [{"type": "ExtensionRef", "extensionRef": reference}],
    }


_EXACT: Final = "Exact"
_PREFIX: Final = "PathPrefix"


def _bare_paths(host: Host, taken: set[_Key]) -> Iterator[str]:
    """The paths that a prefix takes along although the plan does not: sorted, each once."""
    below = {route.path for route in host.routes if (_PREFIX, route.path, _header(route)) in taken}
    if host.openai:
        below.add(OPENAI_ROOT)
    return (path for path in sorted(below) if (_EXACT, path, "") not in taken)


def _key(route: Route) -> _Key:
    return (_PREFIX if route.below else _EXACT, route.path, _header(route))


def _header(route: Route) -> str:
    return route.publication if route.chosen_by_body else ""


def _rule(route: Route, upstream: Upstream, options: GatewayOptions) -> Json:
    match = _matching(_PREFIX if route.below else _EXACT, route.path)
    if route.chosen_by_body:
        match["headers"] = [{"type": "Exact", "name": PUBLICATION_HEADER, "value": route.publication}]
    rule: dict[str, Any] = {
        "name": _name(route, options),
        "matches": [match],
        "filters": [_headers(route), *_rewriting(route, upstream)],
        "backendRefs": [backend_ref(backend_name(upstream, options))],
        "timeouts": {"request": f"{route.longest_s}s"},
    }
    return rule


def _name(route: Route, options: GatewayOptions) -> str:
    """What the gate is told, and the patch of the routes goes by: whose calls these are, and if bodies are read."""
    part = route.name.rpartition("/")[2].replace("_", "-")
    named = reading_rule if route.reads_body and options.patches else publication_rule
    return named(route.publication, part)


def _matching(kind: str, path: str) -> Json:
    return {"path": {"type": kind, "value": path}}


def _headers(route: Route) -> Json:
    """The key ends here, whatever Check answers; the server is told whose call it is."""
    modified = {
        "set": [{"name": PUBLICATION_HEADER, "value": route.publication}],
        "remove": list(CREDENTIAL_HEADERS),
    }
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": modified}


def _rewriting(route: Route, upstream: Upstream) -> list[Json]:
    rewrite: dict[str, Any] = {}
    if not is_address(upstream.hostname):  # Gateway API has no word for an address or a port here
        rewrite["hostname"] = upstream.hostname
    matched = f"{route.path}/" if route.below else route.path
    if route.rewrite != matched:
        rewrite["path"] = _new_path(route)
    return [{"type": "URLRewrite", "urlRewrite": rewrite}] if rewrite else []


def _new_path(route: Route) -> Json:
    if route.below:
        return {"type": "ReplacePrefixMatch", "replacePrefixMatch": route.rewrite.rstrip("/") or "/"}
    return {"type": "ReplaceFullPath", "replaceFullPath": route.rewrite}
