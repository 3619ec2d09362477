"""Whose fault it is: from objects that are not in force to publications that are not live. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from extauth.request.route_names import is_by_path
from publisher.gateway.cluster.ownership import Key, references
from publisher.gateway.resources.naming import Json, identity
from publisher.gateway.resources.routes import ROUTES, carried
from publisher.gateway.resources.targets import is_read
from publisher.plan import Plan


def blamed(faults: Mapping[Key, str], objects: Collection[Json], plan: Plan) -> dict[str, str]:
    """By uid why a publication is not live; the first fault that concerns it."""
    found: dict[str, str] = {}
    users = _users(objects) if faults else {}
    for obj in objects:
        if why := faults.get(identity(obj)):
            for uid in _concerned(obj, users, plan):
                found.setdefault(uid, why)
    return found


def _users(objects: Iterable[Json]) -> Mapping[Key, list[Json]]:
    """Who points to an object, of those to which a rule leads."""
    users = defaultdict[Key, list[Json]](list)
    for obj in objects:
        for key in references(obj):
            users[key].append(obj)
    return users


def _concerned(obj: Json, users: Mapping[Key, list[Json]], plan: Plan) -> frozenset[str]:
    """Those whose calls an object takes, or holds for; where it is for all calls, everybody.

    The gate's Backend is no route's: every call needs it.
    """
    if obj["kind"] in {"Backend", "AIServiceBackend"} and (using := users.get(identity(obj))):
        return frozenset[str]().union(*(_concerned(one, users, plan) for one in using))
    if obj["kind"] in ROUTES:
        return carried(obj) or _chosen(plan, obj["spec"])
    if is_read(obj):
        return frozenset(route.publication for host in plan.hosts for route in host.routes if route.reads_body)
    return frozenset(upstream.publication for upstream in plan.upstreams)


def _chosen(plan: Plan, spec: Json) -> frozenset[str]:
    """Those of whom Check names one to calls that wait at an entry: by their body, or by their path."""
    hosts, by_path = frozenset(spec.get("hostnames", ())), any(is_by_path(rule["name"]) for rule in spec["rules"])
    return frozenset(
        route.publication
        for host in plan.hosts
        if host.name in hosts
        for route in host.routes
        if route.chosen and route.chosen_by_body is not by_path
    )
