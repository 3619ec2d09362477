"""What is to be told of an object that is in a cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from publisher.gateway.cluster.conditions import judged
from publisher.gateway.cluster.ownership import CLOSES, imprint, is_ours, over_listeners, replacing
from publisher.gateway.resources.naming import Json
from publisher.gateway.resources.routes import ROUTES


@dataclass(frozen=True, slots=True)
class Told:
    """What matters to us of an object: two that are told alike need nothing done."""

    imprint: str  # what it says
    why: str  # what its controller says of it; "" where all is good
    is_ours: bool


def told(obj: Json, gateway: str) -> Told:
    """Tell what matters of an object."""
    return Told(imprint(obj), judged(obj, gateway).why, is_ours(obj, gateway))


def fault(obj: Json, policies: Iterable[Json], gateway: str) -> str:
    """Why calls do not pass an object as they should; "" where they do. ``policies`` are all SecurityPolicies there."""
    if why := judged(obj, gateway).why:
        return why
    if obj["kind"] == CLOSES:
        others, where = over_listeners(policies, gateway), f"a listener of Gateway {gateway}"
    elif obj["kind"] in ROUTES:
        others, where = replacing(policies, obj), f"{obj['kind']} {obj['metadata']['name']}"
    else:
        return ""
    return f"{CLOSES} {others[0]} takes the place of ours on {where}: remove it" if others else ""
