"""What the gateway's controller says of an object: in force, not yet judged, or not, and why. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from publisher.gateway.resources.naming import Json

TRUE: Final = "True"

REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "HTTPRoute": ("Accepted", "ResolvedRefs"),
    "SecurityPolicy": ("Accepted",),
    "ClientTrafficPolicy": ("Accepted",),
    "BackendTrafficPolicy": ("Accepted",),
    "EnvoyExtensionPolicy": ("Accepted",),
    "EnvoyPatchPolicy": ("Accepted", "Programmed"),
    "AIGatewayRoute": ("Accepted",),
}
"""The conditions that must be true of a kind, in the order in which they come about. Other kinds are not judged."""

WRONG: Final[Mapping[str, tuple[str, ...]]] = {"HTTPRoute": ("PartiallyInvalid",)}
"""Those that must not be: some rules of such a route are left out.

``Overridden`` of a SecurityPolicy is none of them: it is said too where a route of somebody else's has a policy of its
own. Whether one stands in ours' place on a listener or a route of ours is looked for by itself (``telling.fault``).
"""


class Standing(enum.Enum):
    """Where an object stands."""

    GOOD = "good"
    PENDING = "pending"  # nobody has judged it as it is now
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Where it stands, and why where it is not good."""

    standing: Standing
    why: str = ""


_GOOD: Final = Judgement(Standing.GOOD)


def judged(obj: Json, gateway: str) -> Judgement:
    """What is said of an object by those who look after this gateway, the worst of it first."""
    required = REQUIRED.get(obj["kind"], ())
    if not required:
        return _GOOD
    found = [_of_one(obj, conditions, required) for conditions in _said(obj, gateway)]
    if not found:
        return _pending(obj, "nobody looks after it yet; is the Gateway there, and its controller?")
    return next(
        (one for standing in (Standing.BAD, Standing.PENDING) for one in found if one.standing is standing), _GOOD
    )


def _said(obj: Json, gateway: str) -> Iterator[list[Json]]:
    """The conditions of each entry that is about this gateway: a route may have several parents, a policy ancestors.

    An AIGatewayRoute has none of either, and says it once.
    """
    status = obj.get("status") or {}
    if status.get("conditions"):
        yield status["conditions"]
    for entry in (*(status.get("parents") or ()), *(status.get("ancestors") or ())):
        of = entry.get("parentRef") or entry.get("ancestorRef") or {}
        is_near = of.get("namespace", obj["metadata"]["namespace"]) == obj["metadata"]["namespace"]
        if of.get("kind", "Gateway") == "Gateway" and of.get("name") == gateway and is_near:
            yield entry.get("conditions") or []


def _of_one(obj: Json, conditions: list[Json], required: tuple[str, ...]) -> Judgement:
    generation = obj["metadata"].get("generation", 0)
    current = {one["type"]: one for one in conditions if one.get("observedGeneration", generation) >= generation}
    for name in WRONG.get(obj["kind"], ()):
        if name in current and current[name]["status"] == TRUE:
            return _bad(obj, current[name])
    for name in required:
        if name not in current:
            return _pending(obj, f"{name} is not judged yet")
        if current[name]["status"] != TRUE:
            return _bad(obj, current[name])
    return _GOOD


def _pending(obj: Json, why: str) -> Judgement:
    return Judgement(Standing.PENDING, f"{_named(obj)}: {why}")


def _bad(obj: Json, condition: Json) -> Judgement:
    said = (
        f"{condition['type']} is {condition['status']} ({condition.get('reason', '')}): {condition.get('message', '')}"
    )
    return Judgement(Standing.BAD, f"{_named(obj)}: {said}")


def _named(obj: Json) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"
