"""How Envoy finds a route: a model of its matcher trees, and of the list that they stand for.

A tree's exact map and its header's map know whole values; of a prefix map the longest key decides, and what is under it
is not tried again with a shorter one. Under a key the first route that matches takes the call, or none does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.envoy.files import Resources
from publisher.plan import OPENAI_ROOT, Host

Json = dict[str, Any]


def said(file: Resources) -> list[Json]:
    """The resources of a file."""
    found: list[Json] = json.loads(file.text())["resources"]
    return found


def all_routes(matcher: Json) -> Iterator[Json]:
    """Every route of a tree, once for each key that it stands under."""
    for how in ("exact_match_map", "prefix_match_map"):
        for match in matcher["matcher_tree"].get(how, {"map": {}})["map"].values():
            yield from _under(match)
    if "on_no_match" in matcher:
        yield from _under(matcher["on_no_match"])


def _under(match: Json) -> Iterator[Json]:
    if "matcher" in match:
        yield from all_routes(match["matcher"])
    else:
        yield from match["action"]["typed_config"]["routes"]


def found_by_tree(matcher: Json, headers: Mapping[str, str]) -> str:
    """The name of the route that takes a call, "" where none does. ``headers`` has ``:path`` and ``:method`` too."""
    tree = matcher["matcher_tree"]
    value = headers.get(tree["input"]["typed_config"]["header_name"], "")
    if "exact_match_map" in tree:
        match = tree["exact_match_map"]["map"].get(value)
    else:
        keys = tree["prefix_match_map"]["map"]
        longest = max((key for key in keys if value.startswith(key)), key=len, default=None)
        match = None if longest is None else keys[longest]
    match = match or matcher.get("on_no_match")
    if match is None:
        return ""
    if "matcher" in match:
        return found_by_tree(match["matcher"], headers)
    return _first(match["action"]["typed_config"]["routes"], headers)


def _first(routes: list[Json], headers: Mapping[str, str]) -> str:
    return next((route["name"] for route in routes if _matches(route["match"], headers)), "")


def _matches(match: Json, headers: Mapping[str, str]) -> bool:
    path = headers[":path"].partition("?")[0]
    if not (path == match["path"] if "path" in match else path.startswith(match["prefix"])):
        return False
    return all(_header_matches(wanted, headers.get(wanted["name"], "")) for wanted in match.get("headers", ()))


def _header_matches(wanted: Json, value: str) -> bool:
    if "range_match" in wanted:
        bounds = wanted["range_match"]
        inside = value.isdigit() and bounds["start"] <= int(value) < bounds["end"]
        return inside != wanted.get("invert_match", False)
    if "present_match" in wanted:
        return bool(value) == wanted["present_match"]
    text: Json = wanted["string_match"]
    if "exact" in text:
        return bool(value == text["exact"])
    return bool(re.fullmatch(text["safe_regex"]["regex"], value))


def found_by_list(host: Host, headers: Mapping[str, str], *, named_by: str) -> str:
    """The same by a plan's own order: each route is tried, the first takes the call; last the entries."""
    path = headers[":path"].partition("?")[0]
    for route in (one for one in host.routes if not one.chosen):
        if path.startswith(f"{route.path}/") if route.below else path == route.path:
            return route.name
    if any(path.startswith(f"{one.path}/") if one.below else path == one.path for one in host.entries):
        return f"{host.name}/kserve"
    for route in (one for one in host.routes if one.chosen):
        if headers.get(named_by) != route.publication:
            continue
        if path.startswith(f"{route.path}/") if route.below else path == route.path:
            return route.name
    return f"{host.name}/openai" if host.openai and path.startswith(f"{OPENAI_ROOT}/") else ""
