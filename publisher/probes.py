"""Which calls show that a publication is live: what is asked of the gateway's listener, and who must be named. Pure.

A publication's own path must name it; where a body or a path can choose it, its host's entry must name the host too.
Where the gate needs to know what bodies say, one is sent, and it must have been read. The route that is chosen so has
no question of its own: nobody can ask for it without a key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from catalog.inference import READY
from extauth.answers.probing import OPENAI_HOST, PUBLICATION
from publisher.kserve.paths import V2_ROOT
from publisher.plan import OPENAI_ROOT, Plan, Route, Upstream

NOWHERE: Final = ":probe"
"""A segment that no publication's path can have, so nobody else's route is met below a path."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call and what the gate must say of its route."""

    host: str
    path: str
    kind: str  # PUBLICATION or OPENAI_HOST
    name: str  # the publication's uid, or the host
    reads_body: bool = False  # it is asked with a body, which must be read
    called_as: str = ""  # what its metadata name, of gRPC; "": nothing


@dataclass(frozen=True, slots=True)
class Basis:
    """What a publication's being live rests on: proved once, it holds until any of this changes."""

    upstream: Upstream
    host: str
    routes: tuple[Route, ...]
    by_body: bool  # a body can choose it
    by_path: bool = False  # a path can, in KServe's words

    def questions(self) -> tuple[Question, ...]:
        """What has to be asked."""
        own = min((route for route in self.routes if not route.chosen and not route.waits), key=self._turn)
        path = READY if own.grpc else f"{own.path}/{NOWHERE}" if own.below else own.path
        asked = Question(self.host, path, PUBLICATION, own.publication, own.reads_body, own.called_as)
        by_body = (Question(self.host, _ENTRY, OPENAI_HOST, self.host, reads_body=True),) if self.by_body else ()
        by_path = (Question(self.host, _ENTRY_BY_PATH, OPENAI_HOST, self.host),) if self.by_path else ()
        return (asked, *by_body, *by_path)

    @staticmethod
    def _turn(route: Route) -> tuple[bool, bool, bool]:
        """Rather a route whose bodies are read, one of a single path, one that is there whatever else is published."""
        return not route.reads_body, route.below, not route.called_as


_ENTRY: Final = f"{OPENAI_ROOT}/{NOWHERE}"
_ENTRY_BY_PATH: Final = f"{V2_ROOT}/{NOWHERE}"


def bases(plan: Plan) -> Mapping[str, Basis]:
    """What each publication of a plan rests on, by uid."""
    upstreams = {upstream.publication: upstream for upstream in plan.upstreams}
    found: dict[str, Basis] = {}
    for host in plan.hosts:
        routes: dict[str, list[Route]] = defaultdict(list)
        for route in host.routes:
            routes[route.publication].append(route)
        has_entry = not any(_takes_entry(route) for route in host.routes)
        has_named = any(one.below and one.path == V2_ROOT for one in host.entries)
        for uid, own in routes.items():
            by_body = has_entry and any(route.chosen_by_body for route in own)
            by_path = has_named and any(route.chosen and not route.chosen_by_body for route in own)
            found[uid] = Basis(upstreams[uid], host.name, tuple(own), by_body, by_path)
    return found


def _takes_entry(route: Route) -> bool:
    """Whether a publication has all paths where a body would decide, so that none ever does."""
    return route.below and not route.chosen and _ENTRY.startswith(f"{route.path}/")
