"""Which rule of Gateway API takes a call, and what its server sees: the specification's precedence, written anew.

Exact paths before prefixes, then the longest path, then the most headers (HTTPRouteRule's ``matches``). A prefix is of
whole segments. What Envoy Gateway makes of it is tried on the real one in tests/gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extauth.request.route_names import is_by_path, read_rule
from publisher.envoy.files import PUBLICATION_HEADER

Json = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """Where a call goes, and whom its rule names."""

    publication: str
    openai_host: str = ""
    path: str = ""  # as the server sees it; "" where no server is reached
    by_path: bool = False  # Check is asked by KServe's words


NOBODY = Taken("")
_METHOD = ":method"


def taken(objects: Iterable[Json], host: str, path: str, headers: Mapping[str, str], method: str = "GET") -> Taken:
    """Follow a call through HTTPRoutes."""
    rules = [
        rule
        for obj in objects
        if obj["kind"] == "HTTPRoute" and host in obj["spec"].get("hostnames", [host])
        for rule in obj["spec"]["rules"]
    ]
    told = {**headers, _METHOD: method}
    matches = [(rule, match) for rule in rules for match in rule["matches"]]
    fitting = [(_rank(match), rule, match) for rule, match in matches if _fits(match, path, told)]
    if not fitting:
        return NOBODY
    best = max(rank for rank, _, _ in fitting)
    winners = [(rule, match) for rank, rule, match in fitting if rank == best]
    assert len(winners) == 1, f"{path}: {[rule['name'] for rule, _ in winners]} match equally well"
    rule, match = winners[0]
    publication, openai_host = read_rule(rule["name"])
    reaches = leads(rule)
    assert publication or not reaches, f"{rule['name']}: only a publication's rule reaches a server"
    seen = _rewritten(rule["filters"], match, path) if reaches else ""
    return Taken(publication, openai_host, seen, is_by_path(rule["name"]))


def leads(rule: Json) -> bool:
    """Whether a rule leads to a server, and not to the one that nobody has."""
    return any(not ref["name"].endswith("-nobody") for ref in rule.get("backendRefs", ()))


def passed(objects: Sequence[Json], host: str, path: str, method: str = "GET") -> Taken:
    """Follow a call that Check lets pass: it names the publication, if it is an openai one's, and the route is chosen
    again."""  # noqa: D205, D209
    first = taken(objects, host, path, {}, method)
    if not first.publication or first.path or first.by_path:
        return first
    again = taken(objects, host, path, {PUBLICATION_HEADER: first.publication}, method)
    assert again.publication == first.publication, f"{path}: {again} after {first}"
    return again


def _rank(match: Json) -> tuple[bool, int, int]:
    return match["path"]["type"] == "Exact", len(match["path"]["value"]), len(_wanted(match))


def _fits(match: Json, path: str, headers: Mapping[str, str]) -> bool:
    value = match["path"]["value"]
    fits = path == value or (match["path"]["type"] == "PathPrefix" and path.startswith(f"{value}/"))
    return fits and all(headers.get(name) == value for name, value in _wanted(match).items())


def _wanted(match: Json) -> dict[str, str]:
    """The headers that a match asks for; its method is one to Envoy Gateway."""
    method = {_METHOD: match["method"]} if "method" in match else {}
    return {wanted["name"]: wanted["value"] for wanted in match.get("headers", ())} | method


def _rewritten(filters: Sequence[Json], match: Json, path: str) -> str:
    for each in filters:
        new = each.get("urlRewrite", {}).get("path")
        if new and new["type"] == "ReplaceFullPath":
            return str(new["replaceFullPath"])
        if new:
            rest = path.removeprefix(match["path"]["value"])
            return new["replacePrefixMatch"].rstrip("/") + rest or "/"
    return path
