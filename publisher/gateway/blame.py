"""Whose fault it is: from objects that are not in force to publications that are not live. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from publisher.gateway.naming import Json, identity
from publisher.gateway.ownership import Key
from publisher.gateway.routes import ROUTES, carried
from publisher.plan import Plan


def blamed(faults: Mapping[Key, str], objects: Iterable[Json], plan: Plan) -> dict[str, str]:
    """By uid why a publication is not live; the first fault that concerns it."""
    found: dict[str, str] = {}
    for obj in objects:
        if why := faults.get(identity(obj)):
            for uid in _concerned(obj, plan):
                found.setdefault(uid, why)
    return found


def _concerned(obj: Json, plan: Plan) -> frozenset[str]:
    """Those whose calls an object takes; where it is no route, everybody."""
    if obj["kind"] in {"Backend", "AIServiceBackend"}:
        return frozenset()  # the routes that point to it are faulty themselves
    if obj["kind"] not in ROUTES:
        return frozenset(upstream.publication for upstream in plan.upstreams)
    return carried(obj) or _chosen_by_body(plan, obj["spec"].get("hostnames", ()))


def _chosen_by_body(plan: Plan, hosts: Iterable[str]) -> frozenset[str]:
    names = frozenset(hosts)
    return frozenset(
        route.publication for host in plan.hosts if host.name in names for route in host.routes if route.chosen_by_body
    )
