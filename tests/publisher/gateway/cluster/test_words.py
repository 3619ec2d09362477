"""What objects in a cluster say of themselves, row by row: how they fare, whose they are, who is to blame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from publisher.gateway.cluster.blame import blamed
from publisher.gateway.cluster.conditions import Standing, judged
from publisher.gateway.cluster.ownership import imprint, is_foreign, is_ours, managers, references, unwanted
from publisher.gateway.cluster.telling import fault, told
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.manifests import base, published
from publisher.gateway.resources.naming import identity
from publisher.plan import plan
from tests.e2e.proxy import openai, publication

Json = dict[str, Any]
LABELS = {"app.kubernetes.io/managed-by": "tollkeeper", "tollkeeper.dev/gateway": "tollkeeper"}
APPLIED = {"manager": "tollkeeper", "operation": "Apply"}
SAID = {"manager": "envoy-gateway", "operation": "Update", "subresource": "status"}
OPTIONS = GatewayOptions(gate=("unix:/run/gate.sock",), per_publication_routes=True)


def condition(kind: str, status: str = "True", generation: int = 2) -> Json:
    """A condition as a controller writes it."""
    return {
        "type": kind,
        "status": status,
        "reason": "Because",
        "message": "so it is",
        "observedGeneration": generation,
    }


def said(*conditions: Json, of: str = "tollkeeper", namespace: str = "gw", kind: str = "Gateway") -> Json:
    """An entry of a status about a parent."""
    return {"parentRef": {"kind": kind, "name": of, "namespace": namespace}, "conditions": list(conditions)}


def obj(kind: str = "HTTPRoute", name: str = "tollkeeper-iris", **parts: Any) -> Json:
    """An object of ours at its second generation."""
    metadata = {
        "name": name,
        "namespace": "gw",
        "generation": 2,
        "uid": "u",
        "labels": LABELS,
        "managedFields": [APPLIED, SAID],
    }
    return {"kind": kind, "metadata": metadata | parts.pop("metadata", {}), "spec": {}} | parts


ACCEPTED, RESOLVED = condition("Accepted"), condition("ResolvedRefs")
JUDGEMENTS: dict[str, tuple[list[Json], Standing, str]] = {
    "nobody": ([], Standing.PENDING, "nobody looks after it yet"),
    "all good": ([said(ACCEPTED, RESOLVED)], Standing.GOOD, ""),
    "one is missing": ([said(ACCEPTED)], Standing.PENDING, "ResolvedRefs is not judged yet"),
    "refused": (
        [said(condition("Accepted", "False"), RESOLVED)],
        Standing.BAD,
        "HTTPRoute tollkeeper-iris: Accepted is False (Because): so it is",
    ),
    "unknown is not good": ([said(condition("Accepted", "Unknown"), RESOLVED)], Standing.BAD, "Accepted is Unknown"),
    "of an older generation": ([said(condition("Accepted", generation=1), RESOLVED)], Standing.PENDING, "Accepted"),
    "refused at an older generation": (
        [said(condition("Accepted", "False", 1), condition("ResolvedRefs", "False", 1))],
        Standing.PENDING,
        "Accepted is not judged yet",
    ),
    "some rules are left out": (
        [said(ACCEPTED, RESOLVED, condition("PartiallyInvalid"))],
        Standing.BAD,
        "PartiallyInvalid is True",
    ),
    "another gateway's word": ([said(ACCEPTED, RESOLVED, of="other")], Standing.PENDING, "nobody"),
    "another namespace's": ([said(ACCEPTED, RESOLVED, namespace="elsewhere")], Standing.PENDING, "nobody"),
    "another kind's": ([said(ACCEPTED, RESOLVED, kind="Service")], Standing.PENDING, "nobody"),
    "one listener of two": (
        [said(ACCEPTED, RESOLVED), said(ACCEPTED, condition("ResolvedRefs", "False"))],
        Standing.BAD,
        "ResolvedRefs is False",
    ),
}


@pytest.mark.parametrize("row", JUDGEMENTS.values(), ids=JUDGEMENTS)
def test_how_a_route_fares(row: tuple[list[Json], Standing, str]) -> None:
    """Only what is said of this gateway counts, of the object as it is now, and the worst of it."""
    parents, standing, why = row
    found = judged(obj(status={"parents": parents}), "tollkeeper")
    assert found.standing is standing
    assert why in found.why
    assert bool(found.why) == (standing is not Standing.GOOD)


def test_how_a_patch_fares() -> None:
    """Accepted is not enough: Envoy was told only once it is programmed."""
    entry = {"ancestorRef": {"name": "tollkeeper"}, "conditions": [ACCEPTED]}
    patch = obj("EnvoyPatchPolicy", status={"ancestors": [entry]})
    assert judged(patch, "tollkeeper").why == "EnvoyPatchPolicy tollkeeper-iris: Programmed is not judged yet"
    entry["conditions"] = [ACCEPTED, condition("Programmed")]
    assert judged(patch, "tollkeeper").standing is Standing.GOOD


def test_what_nobody_judges_is_good() -> None:
    """A server fares as its route does."""
    assert judged(obj("Backend"), "tollkeeper").standing is Standing.GOOD


OWNERS: dict[str, tuple[Json, bool, bool]] = {
    "ours": ({}, True, False),
    "without our label": ({"labels": {}}, False, False),
    "of another gateway of ours": ({"labels": LABELS | {"tollkeeper.dev/gateway": "b"}}, False, False),
    "never applied by us": ({"managedFields": [{"manager": "helm", "operation": "Apply"}, SAID]}, False, True),
    "written by one of our name": ({"managedFields": [{"manager": "tollkeeper", "operation": "Update"}]}, False, True),
    "nobody's": ({"managedFields": None, "labels": None}, False, True),
}


@pytest.mark.parametrize("row", OWNERS.values(), ids=OWNERS)
def test_whose_an_object_is(row: tuple[Json, bool, bool]) -> None:
    """Ours to remove needs both signs; what we never applied is not ours to change."""
    metadata, ours, foreign = row
    found = obj(metadata=metadata)
    assert is_ours(found, "tollkeeper") is ours
    assert is_foreign(found) is foreign


def test_managers_are_those_of_its_fields() -> None:
    """Who writes its status has no part in it."""
    assert managers(obj()) == {"tollkeeper"}


def test_what_goes_goes_in_order_and_the_policy_stays() -> None:
    """Routes before what they need; never what closes the gateway."""
    live = [obj(kind, name) for kind, name in (("Backend", "b"), ("HTTPRouteFilter", "f"), ("HTTPRoute", "r"))]
    live += [obj("EnvoyPatchPolicy", "p"), obj("SecurityPolicy", "s"), obj("HTTPRoute", "kept")]
    gone = unwanted(live, {("HTTPRoute", "gw", "kept")}, "tollkeeper")
    assert [one["metadata"]["name"] for one in gone] == ["r", "p", "b", "f"]


def test_a_route_points_to_all_it_needs() -> None:
    """To its server, and to what answers in the server's place."""
    published_ones = published(plan([openai("llama", "/models/llama", "http://llama.test:80")]), OPTIONS)
    kinds = {key[0] for route in published_ones for key in references(route)}
    assert kinds == {"Backend", "HTTPRouteFilter"}


def test_two_gateways_of_a_namespace_share_nothing() -> None:
    """What one of them removes or changes is none of the other's, and no route points to it."""
    wanted = plan([openai("llama", "/models/llama", "http://llama.test:80")])
    both = [replace(OPTIONS, gateway=name) for name in ("tollkeeper", "other")]
    first, second = ({identity(one) for one in base(options)} for options in both)
    assert not first & second
    for options, own in zip(both, (first, second), strict=True):
        made = published(wanted, options)
        pointed = {key for route in made for key in references(route)}
        assert pointed <= own | {identity(one) for one in made}


def test_a_route_of_envoy_ai_gateway_points_to_a_server_too() -> None:
    """And what stands between them to the server: whoever removes one too early, or blames the wrong one, is found."""
    options = replace(OPTIONS, ai_gateway=True)
    wanted = plan([openai("llama", "/models/llama", "https://llama.test")])
    made = published(wanted, options)
    (route,) = [one for one in made if one["kind"] == "AIGatewayRoute"]
    (between,) = [one for one in made if one["kind"] == "AIServiceBackend"]
    (server,) = [one for one in made if one["kind"] == "Backend"]
    assert references(route) == {identity(between)}
    assert references(between) == {identity(server)}
    assert blamed({identity(route): "why"}, made, wanted) == {"llama": "why"}
    assert blamed({identity(between): "why"}, made, wanted) == {"llama": "why"}
    assert blamed({identity(server): "why"}, made, wanted) == {"llama": "why"}
    gone = [one | {"metadata": one["metadata"] | {"managedFields": [APPLIED]}} for one in made]
    order = [one["kind"] for one in unwanted(gone, (), "tollkeeper")]
    assert order.index("AIGatewayRoute") < order.index("AIServiceBackend") < order.index("Backend")


def test_envoy_ai_gateway_says_once_how_its_route_fares() -> None:
    """It has no parents to say it of."""
    route = obj("AIGatewayRoute", "tollkeeper-ai-llama")
    assert judged(route, "tollkeeper").standing is Standing.PENDING
    assert judged(route | {"status": {"conditions": [ACCEPTED]}}, "tollkeeper").standing is Standing.GOOD
    refused = condition("Accepted", "False")
    assert judged(route | {"status": {"conditions": [refused]}}, "tollkeeper").standing is Standing.BAD


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"status": {"parents": []}}, True),
        ({"metadata": {"resourceVersion": "7", "managedFields": []}}, True),
        ({"spec": {"hostnames": ["a.test"]}}, False),
        ({"metadata": {"labels": {}}}, False),
        ({"metadata": {"uid": "another"}}, False),
    ],
)
def test_what_is_left_as_it_was(change: Json, same: bool) -> None:  # noqa: FBT001
    """What an object says counts, and that it is this one; not how it fares."""
    assert (imprint(obj(**change)) == imprint(obj())) is same


TARGETS: dict[str, tuple[Json, bool]] = {
    "the route": ({"targetRefs": [{"kind": "HTTPRoute", "name": "tollkeeper-iris"}]}, True),
    "the route, the old way": ({"targetRef": {"kind": "HTTPRoute", "name": "tollkeeper-iris"}}, True),
    "another route": ({"targetRefs": [{"kind": "HTTPRoute", "name": "theirs"}]}, False),
    "a gateway": ({"targetRefs": [{"kind": "Gateway", "name": "tollkeeper-iris"}]}, False),
    "routes like it": ({"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": LABELS}]}, True),
    "all routes": ({"targetSelectors": [{"kind": "HTTPRoute"}]}, True),
    "others by label": ({"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"a": "b"}}]}, False),
}


@pytest.mark.parametrize("row", TARGETS.values(), ids=TARGETS)
def test_who_takes_the_policys_place(row: tuple[Json, bool]) -> None:
    """Somebody's policy on a route of ours is a fault of that route, however it aims."""
    spec, aims = row
    policy = obj("SecurityPolicy", "cors", spec=spec, metadata={"managedFields": [], "labels": {}})
    route = obj(status={"parents": [said(ACCEPTED, RESOLVED)]})
    assert ("SecurityPolicy cors takes the place of ours" in fault(route, [policy], "tollkeeper")) is aims
    made_of_it = obj("AIGatewayRoute", status={"conditions": [ACCEPTED]})
    assert ("SecurityPolicy cors takes the place of ours" in fault(made_of_it, [policy], "tollkeeper")) is aims
    assert told(route, "tollkeeper").why == ""


LISTENER = {"kind": "Gateway", "name": "tollkeeper", "sectionName": "http"}
OVER: dict[str, tuple[Json, bool]] = {
    "a listener": ({"targetRefs": [LISTENER]}, True),
    "a listener, the old way": ({"targetRef": LISTENER}, True),
    "another gateway's": ({"targetRefs": [LISTENER | {"name": "theirs"}]}, False),
    "a route's rule": ({"targetRefs": [LISTENER | {"kind": "HTTPRoute"}]}, False),
    "the whole gateway": ({"targetRefs": [{"kind": "Gateway", "name": "tollkeeper"}]}, False),
    "all gateways": ({"targetSelectors": [{"kind": "Gateway"}]}, False),
    "nothing": ({}, False),
}


@pytest.mark.parametrize("row", OVER.values(), ids=OVER)
def test_who_takes_the_policys_place_on_a_listener(row: tuple[Json, bool]) -> None:
    """That is a fault of the policy, so of everybody; of two on the whole gateway the controller refuses one."""
    spec, aims = row
    theirs = obj("SecurityPolicy", "cors", spec=spec, metadata={"managedFields": [], "labels": {}})
    ours = obj("SecurityPolicy", "tollkeeper-gate", spec={"targetRefs": [LISTENER]}, status=policy_status(ACCEPTED))
    said = "SecurityPolicy cors takes the place of ours on a listener of Gateway tollkeeper: remove it"
    assert fault(ours, [theirs, ours], "tollkeeper") == (said if aims else "")


REFUSED = condition("Accepted", "False")
POLICIES: dict[str, tuple[list[Json], Standing]] = {
    "in force": ([ACCEPTED], Standing.GOOD),
    "another's route has a policy of its own": ([ACCEPTED, condition("Overridden")], Standing.GOOD),
    "second to another on the gateway": ([REFUSED], Standing.BAD),
}


@pytest.mark.parametrize("row", POLICIES.values(), ids=POLICIES)
def test_how_the_policy_fares(row: tuple[list[Json], Standing]) -> None:
    """Where it is refused another one is in its place, and the gateway may be open."""
    conditions, standing = row
    policy = obj("SecurityPolicy", "tollkeeper-gate", status=policy_status(*conditions))
    assert judged(policy, "tollkeeper").standing is standing


def policy_status(*conditions: Json) -> Json:
    """A policy's status, of our gateway."""
    return {"ancestors": [{"ancestorRef": {"kind": "Gateway", "name": "tollkeeper"}, "conditions": list(conditions)}]}


def test_who_is_to_blame() -> None:
    """A route's fault is its publication's; what bodies and endings need, openai models', all else everybody's."""
    iris, llama = publication("iris", "/models/iris"), openai("llama", "/models/llama")
    wanted = plan([iris, llama, openai("far", "/models/far", host="far.test")])
    objects = (*base(OPTIONS), *published(wanted, OPTIONS))
    by_name = {one["metadata"]["name"]: identity(one) for one in objects}
    entries = [key for name, key in by_name.items() if "entry" in name]
    models = {"llama", "far"}
    assert blamed({by_name["tollkeeper-iris"]: "no"}, objects, wanted) == {"iris": "no"}
    assert {frozenset(blamed({key: "no"}, objects, wanted)) for key in entries} == {
        frozenset({"llama"}),
        frozenset({"far"}),
    }
    for read in (by_name["tollkeeper-meter"], ("SecurityPolicy", OPTIONS.namespace, "tollkeeper-bodies")):
        assert set(blamed({read: "no"}, objects, wanted)) == models
    assert set(blamed({by_name["tollkeeper-hardened"]: "no"}, objects, wanted)) == {"iris", *models}
    first = {by_name["tollkeeper-iris"]: "its own", by_name["tollkeeper-hardened"]: "everybody's"}
    assert blamed(first, objects, wanted)["iris"] == "everybody's"


def test_a_servers_fault_is_of_those_whose_rules_lead_there() -> None:
    """The gate's Backend is no server: without it nobody's calls go on."""
    iris = publication("iris", "/models/iris", "http://iris.test:80")
    wanted = plan([iris, openai("llama", "/models/llama", "http://llama.test:80")])
    objects = (*base(OPTIONS), *published(wanted, OPTIONS))
    (server,) = [one for one in objects if "iris.test" in str(one["spec"].get("endpoints"))]
    assert blamed({identity(server): "no"}, objects, wanted) == {"iris": "no"}
    gate = ("Backend", OPTIONS.namespace, "tollkeeper-gate")
    assert blamed({gate: "no"}, objects, wanted) == {"iris": "no", "llama": "no"}
