"""Which calls show that a publication is live: what is asked of the gateway's listener, and who must be named. Pure.

A publication's own path must name it; where a body can choose it, its host's entry must name the host too. The route
that a body chooses has no question of its own: nobody can ask for it without a key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extauth.probing import OPENAI_HOST, PUBLICATION
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


@dataclass(frozen=True, slots=True)
class Basis:
    """What a publication's being live rests on: proved once, it holds until any of this changes."""

    upstream: Upstream
    host: str
    routes: tuple[Route, ...]

    def questions(self) -> tuple[Question, ...]:
        """What has to be asked."""
        own = min((route for route in self.routes if not route.chosen_by_body), key=lambda route: route.below)
        path = f"{own.path}/{NOWHERE}" if own.below else own.path
        asked = Question(self.host, path, PUBLICATION, own.publication)
        return (asked, entry_question(self.host)) if any(route.chosen_by_body for route in self.routes) else (asked,)


def entry_question(host: str) -> Question:
    """What has to be asked of a host whose openai models a body can choose."""
    return Question(host, f"{OPENAI_ROOT}/{NOWHERE}", OPENAI_HOST, host)


def bases(plan: Plan) -> Mapping[str, Basis]:
    """What each publication of a plan rests on, by uid."""
    upstreams = {upstream.publication: upstream for upstream in plan.upstreams}
    found: dict[str, Basis] = {}
    for host in plan.hosts:
        routes: dict[str, list[Route]] = defaultdict(list)
        for route in host.routes:
            routes[route.publication].append(route)
        found |= {uid: Basis(upstreams[uid], host.name, tuple(own)) for uid, own in routes.items()}
    return found
