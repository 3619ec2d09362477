"""Whose an object in a cluster is, whether it is as we left it, and what is not wanted any more. Pure.

An object is ours by two signs: our label, and our name among those who manage its fields. With one of them alone it is
somebody else's, and is never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from publisher.gateway.resources.naming import GATEWAY_LABEL, MANAGED_BY, MANAGER, Json, digest, identity
from publisher.gateway.resources.routes import ROUTES

Key = tuple[str, str, str]
"""Kind, namespace and name: ``naming.identity``."""

CLOSES: Final = "SecurityPolicy"
"""What closes the gateway; we never remove one, wanted or not."""

REMOVAL: Final = (
    "HTTPRoute",
    "AIGatewayRoute",
    "AIServiceBackend",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "Backend",
)
"""Who goes first: a route before what it needs. All other kinds follow."""


def managers(obj: Json) -> frozenset[str]:
    """Everybody who manages a field of an object, but for those who only say how it fares."""
    entries = obj["metadata"].get("managedFields") or ()
    return frozenset(entry.get("manager", "") for entry in entries if not entry.get("subresource"))


def is_foreign(obj: Json) -> bool:
    """Whether we have never applied this object: it only has the name that we want."""
    entries = obj["metadata"].get("managedFields") or ()
    return not any(entry.get("manager") == MANAGER and entry.get("operation") == "Apply" for entry in entries)


def is_ours(obj: Json, gateway: str) -> bool:
    """Whether it is ours to remove: applied by us, and labelled as of this gateway."""
    labels = obj["metadata"].get("labels") or {}
    is_labelled = labels.get(MANAGED_BY) == MANAGER and labels.get(GATEWAY_LABEL) == gateway
    return is_labelled and not is_foreign(obj)


def imprint(obj: Json) -> str:
    """What an object says, told in a few letters; statuses and who manages what are no part of it."""
    metadata = obj["metadata"]
    return digest(metadata.get("uid"), metadata.get("labels"), obj.get("spec"))


def unwanted(live: Iterable[Json], wanted: Collection[Key], gateway: str) -> list[Json]:
    """What is ours and not wanted, in the order in which it has to go."""
    found = [obj for obj in live if identity(obj) not in wanted and obj["kind"] != CLOSES and is_ours(obj, gateway)]
    return sorted(found, key=lambda obj: (_turn(obj["kind"]), identity(obj)))


def references(obj: Json) -> frozenset[Key]:
    """The objects that an object points to: a route's rules, and what stands between them and a server."""
    namespace, usual = obj["metadata"]["namespace"], _POINTS_TO.get(obj["kind"], "")
    return frozenset((ref.get("kind", usual), namespace, ref["name"]) for ref in _pointed(obj))


_POINTS_TO: Final = {"AIGatewayRoute": "AIServiceBackend"}
"""What a reference without a kind means."""


def _pointed(obj: Json) -> Iterator[Json]:
    spec = obj["spec"]
    if obj["kind"] == "AIServiceBackend":
        yield spec["backendRef"]
    for rule in spec.get("rules", ()) if obj["kind"] in ROUTES else ():
        yield from rule.get("backendRefs", ())
        yield from (one["extensionRef"] for one in rule.get("filters", ()) if "extensionRef" in one)


def replacing(policies: Iterable[Json], route: Json) -> list[str]:
    """Names of others' SecurityPolicies on a route of ours: each takes the place of the one that closes the gateway.

    Of an AIGatewayRoute an HTTPRoute of the same name is made, which a policy may aim at too.
    """
    return sorted(policy["metadata"]["name"] for policy in policies if is_foreign(policy) and _aims_at(policy, route))


def over_listeners(policies: Iterable[Json], gateway: str) -> list[str]:
    """Names of others' SecurityPolicies on a listener of the gateway: each takes the place of ours on all its routes.

    One on the whole gateway, by name or by label, does not: of two such policies the controller refuses the later.
    """
    theirs = (policy for policy in policies if is_foreign(policy))
    return sorted(policy["metadata"]["name"] for policy in theirs if _aims_at_listener(policy, gateway))


def _aims_at_listener(policy: Json, gateway: str) -> bool:
    return any(
        one.get("kind") == "Gateway" and one.get("name") == gateway and one.get("sectionName")
        for one in _targets(policy)
    )


def _aims_at(policy: Json, route: Json) -> bool:
    name = route["metadata"]["name"]
    if any(one.get("kind") in ROUTES and one.get("name") == name for one in _targets(policy)):
        return True
    return any(_selects(one, route) for one in (policy.get("spec") or {}).get("targetSelectors") or ())


def _targets(policy: Json) -> tuple[Json, ...]:
    """What a policy names, the new way and the old."""
    spec = policy.get("spec") or {}
    return (*(spec.get("targetRefs") or ()), *([spec["targetRef"]] if spec.get("targetRef") else ()))


def _selects(selector: Json, route: Json) -> bool:
    """Whether a selector may mean a route; of expressions the worst is believed."""
    labels = route["metadata"].get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    return selector.get("kind") in ROUTES and wanted.items() <= labels.items()


def _turn(kind: str) -> int:
    return REMOVAL.index(kind) if kind in REMOVAL else len(REMOVAL)
