"""How Envoy finds the route of a call among thousands: trees of exact keys and prefixes instead of a list. Pure.

Envoy's ``:path`` has the query in it. So a single path has two keys, ``P`` exact and the prefix ``P?``, and all below
it a third, the prefix ``P/``. The exact map is asked first, then the prefixes, of which the longest decides: no shorter
one is tried behind it. That is right because a route under a key takes every call that the key stands for, and because
a plan tries a longer path before a shorter one: the longest key is the first route of the list.

Below ``OPENAI_ROOT`` a call that no longer path takes is led by the header that Check sets, or waits at the entry.
So it is below ``NAMED_ROOT``, where nothing waits: no call has such a path before Check has written it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from catalog.inference import MODEL_HEADERS
from catalog.inference import ROOT as GRPC_ROOT
from extauth.kserve.paths import NAMED_ROOT
from publisher.kserve.paths import Path
from publisher.plan import OPENAI_ROOT, Route

_TYPE: Final = "type.googleapis.com/envoy."
_PATH: Final = ":path"

Taken = Callable[[tuple[Route, ...]], str]
"""Gives the match that these routes are tried for, in their order, as JSON."""


@dataclass(slots=True)
class Branches:
    """A host's routes in the order they are tried, by what a call must show."""

    exact: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    """Of a path itself, whatever its query."""
    below: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    """Of all that begins with the path and a slash."""
    named: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    """Of calls below ``OPENAI_ROOT`` that Check has given this publication."""
    grpc: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    """Of gRPC calls whose metadata name a publication so; "": of those that name none."""
    by_path: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    """The same below ``NAMED_ROOT``."""
    unnamed: str = ""
    """What takes the calls below ``OPENAI_ROOT`` that it has not, as JSON; "" where none are expected."""
    entries: Sequence[Path] = ()
    """Where calls wait that name a model by the path."""
    waiting: str = ""
    """What takes those, as JSON."""

    def add(self, route: Route) -> None:
        """Put a route behind those before it."""
        if route.chosen:
            into, key = (self.named if route.chosen_by_body else self.by_path), route.publication
        elif route.grpc:
            into, key = self.grpc, route.called_as
        else:
            into, key = (self.below if route.below else self.exact), route.path
        into[key] = (*into.get(key, ()), route)


def tree(branches: Branches, taken: Taken, *, header: str) -> str:
    """The matcher of a host, as JSON; it has at least one route. ``header``: by which Check names a publication."""
    exact = {one.path: branches.waiting for one in branches.entries if not one.below}
    exact |= {path: taken(found) for path, found in branches.exact.items()}
    prefixes = {f"{path}?": match for path, match in exact.items()}
    if branches.unnamed:
        prefixes[f"{OPENAI_ROOT}/"] = _by_name(branches.named, taken, header, branches.unnamed)
    if branches.grpc:
        prefixes[f"{GRPC_ROOT}/"] = _by_metadata(branches, taken)
    if branches.by_path:
        prefixes[f"{NAMED_ROOT}/"] = _by_name(branches.by_path, taken, header)
    prefixes |= {f"{one.path}/": branches.waiting for one in branches.entries if one.below}
    prefixes |= {f"{path}/": taken(found) for path, found in branches.below.items()}
    by_prefix = _lookup(_PATH, "prefix_match_map", prefixes)
    return _lookup(_PATH, "exact_match_map", exact, otherwise=_go_on(by_prefix)) if exact else by_prefix


def _by_name(named: Mapping[str, tuple[Route, ...]], taken: Taken, header: str, unnamed: str = "") -> str:
    found = {name: taken(routes) for name, routes in named.items()}
    if not found:
        return unnamed
    return _go_on(_lookup(header, "exact_match_map", found, otherwise=unnamed))


def _by_metadata(branches: Branches, taken: Taken) -> str:
    """The first of the headers that names a publication decides; a route for calls that name none looks at all."""
    named = {name: taken(found) for name, found in branches.grpc.items() if name}
    found = taken(branches.grpc[""]) if "" in branches.grpc else ""
    for header in reversed(MODEL_HEADERS):
        found = _go_on(_lookup(header, "exact_match_map", named, otherwise=found))
    return found


def _go_on(matcher: str) -> str:
    return f'{{"matcher":{matcher}}}'


def _lookup(header: str, how: str, found: Mapping[str, str], otherwise: str = "") -> str:
    """Look a header up; ``otherwise``: what is done where nothing is found."""
    typed = f'{{"@type":"{_TYPE}type.matcher.v3.HttpRequestHeaderMatchInput","header_name":"{header}"}}'
    entries = ",".join(f"{json.dumps(key)}:{match}" for key, match in found.items())
    looked = f'{{"input":{{"name":"{header}","typed_config":{typed}}},"{how}":{{"map":{{{entries}}}}}}}'
    return f'{{"matcher_tree":{looked}' + (f',"on_no_match":{otherwise}}}' if otherwise else "}")
