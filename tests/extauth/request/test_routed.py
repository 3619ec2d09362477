"""What the route tells of a call, on plain Envoy and on Envoy Gateway, and what is not believed."""

from __future__ import annotations

from typing import Any

import pytest
from gatebench import NATIVE_UNIX, Asker, Catalog, make_gate, question, status, wait_until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from catalog.records import ModelType, Protocol
from extauth.question import read_question
from extauth.request.routed import NOWHERE, Routed, routed
from protos.external_auth_pb2 import CheckRequest

NAMESPACE = "envoy-gateway-system"
RESOURCE = {
    "kind": "HTTPRoute",
    "namespace": NAMESPACE,
    "name": "tollkeeper-routes-0",
    "sectionName": "u1.predict",
    "annotations": {"any": "thing"},
}
_TEXTS = ["HTTPRoute", NAMESPACE, "tollkeeper-routes-0", "u1.predict", "openai.a", "."]


def told(*resources: Any, **metadata: Any) -> CheckRequest:
    """A question as Envoy Gateway's Envoy asks it, of a route made of these resources."""
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.size = "POST", "/models/iris/predict", 12
    http.headers.update({"content-type": "application/json"})
    route = request.attributes.route_metadata_context.filter_metadata
    route["envoy-gateway"].update({"resources": list(resources), "policies": [{"kind": "SecurityPolicy"}]})
    for name, fields in metadata.items():
        route[name].update(fields)
    return request


def read(request: CheckRequest, namespace: str = NAMESPACE) -> Routed:
    """What is read of a question's route."""
    return routed(request.attributes.route_metadata_context.filter_metadata, namespace)


def test_a_rule_names_the_publication() -> None:
    """By the part of its name before the dot, as the release before called its rules too."""
    for rule in ("u1.below", "u1.below.checked", "u1.below.json", "u1.below.unread"):
        assert read(told(RESOURCE | {"sectionName": rule})) == Routed("u1")


def test_an_entry_names_its_host() -> None:
    """Whole, whatever the host is called."""
    for host in ("api.example.test", "api.unread"):
        entry = RESOURCE | {"sectionName": f"openai.{host}"}
        assert read(told(entry)) == Routed(openai_host=host)


def test_a_path_names_the_model_where_its_route_says_so() -> None:
    """On a host and of one publication, by a rule's name or by our own metadata."""
    for rule, route in (
        ("kserve.api.test", Routed("", "api.test", by_path=True)),
        ("u1.kserve", Routed("u1", by_path=True)),
    ):
        assert read(told(RESOURCE | {"sectionName": rule})) == route
    own = {"openai_host": "api.test", "kserve": "yes"}
    assert read(told(tollkeeper=own)) == Routed("", "api.test", by_path=True)
    assert read(told(tollkeeper={"publication": "u1", "kserve": "yes"})) == Routed("u1", by_path=True)


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "tenant-a"},
        {"namespace": ""},
        {"namespace": 1},
        {"name": "publications-0"},
        {"name": "my-tollkeeper-route"},
        {"name": ["tollkeeper-routes-0"]},
        {"kind": "GRPCRoute"},
        {"kind": None},
        {"sectionName": ""},
        {"sectionName": "u1"},
        {"sectionName": "u1."},
        {"sectionName": {"u1": "predict"}},
    ],
)
def test_what_is_not_ours_names_nothing(change: dict[str, Any]) -> None:
    """Another namespace, another route's name, another kind, another rule's name, or no text at all."""
    route = read(told(RESOURCE | change))
    assert (route.publication, route.openai_host) == ("", "")


@pytest.mark.parametrize("missing", ["kind", "namespace", "name", "sectionName"])
def test_what_is_left_out_names_nothing(missing: str) -> None:
    """All four fields are wanted."""
    route = read(told({name: value for name, value in RESOURCE.items() if name != missing}))
    assert (route.publication, route.openai_host) == ("", "")


@pytest.mark.parametrize("resources", [[], ["HTTPRoute"], [None], [[RESOURCE]], [{}, RESOURCE]])
def test_resources_of_another_form_name_nothing(resources: list[Any]) -> None:
    """Junk is no route, and of several resources the first is the route."""
    route = read(told(*resources))
    assert (route.publication, route.openai_host) == ("", "")


_NOISE = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*RESOURCE, *_TEXTS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RESOURCE, "x"]), inner, max_size=5),
    max_leaves=20,
)


@given(resources=st.lists(_NOISE, max_size=3))
def test_noise_is_read_without_a_fault(resources: list[Any]) -> None:
    """Whatever the metadata hold, something is named only by four texts that are right."""
    route = read(told(*resources))
    if route.publication or route.openai_host:
        first = resources[0]
        assert (first["kind"], first["namespace"]) == ("HTTPRoute", NAMESPACE)
        assert first["name"].startswith("tollkeeper-")
        assert first["sectionName"].partition(".")[0] in {route.publication, "openai", "kserve"}


def test_a_gate_that_was_told_no_namespace_believes_none() -> None:
    """The default: Envoy Gateway's metadata is as good as none."""
    assert read(told(RESOURCE), "") == NOWHERE
    call = read_question(told(RESOURCE).SerializeToString())
    assert call is not None
    assert (call.publication, call.openai_host) == ("", "")


def test_our_own_metadata_goes_first() -> None:
    """Plain Envoy's routes carry it, and are read as before, whatever the gate was told."""
    assert read(told(RESOURCE, tollkeeper={"publication": "u9"})) == Routed("u9")


def test_the_whole_question_is_read() -> None:
    """The call knows its publication, and its body, which Envoy Gateway hands over as text."""
    request = told(RESOURCE)
    request.attributes.request.http.body = "{}"
    asked = read_question(request.SerializeToString(), NAMESPACE)
    assert asked is not None
    call = asked.read()
    assert (call.publication, call.raw, call.raw_is_text) == ("u1", b"{}", True)


def test_a_gate_decides_by_the_rules_name(
    redis_url: str, catalog: Catalog, secrets: Secrets, registry: CollectorRegistry, tmp_path_factory: Any
) -> None:
    """200 by the namespace told, 404 by another's; an openai call whose body has not come is refused."""
    catalog.tenant()
    iris = catalog.publication()
    llm = catalog.publication(model="llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)
    _, text = catalog.key(iris, llm)
    target = NATIVE_UNIX.target(tmp_path_factory.mktemp("gate"))
    gate = make_gate(target, redis_url, secrets, registry, gateway_namespace=NAMESPACE)
    gate.start()
    asker = Asker(gate.address)
    try:
        wait_until(lambda: gate.readiness().ready)

        def asked(uid: str, **change: str) -> CheckRequest:
            request = question(key=text)
            rule = RESOURCE | {"sectionName": f"{uid}.below"} | change
            route = request.attributes.route_metadata_context.filter_metadata
            route["envoy-gateway"].update({"resources": [rule]})
            return request

        assert status(asker.ask(asked(iris.uid))) == 200
        assert status(asker.ask(asked(iris.uid, namespace="tenant-a"))) == 404
        assert status(asker.ask(asked(iris.uid, name="iris"))) == 404
        assert status(asker.ask(asked(llm.uid))) == 400
        whole = asked(llm.uid)
        whole.attributes.request.http.body = '{"model": "llm"}'
        assert "reservation" in asker.ask(whole).dynamic_metadata
    finally:
        asker.close()
        gate.stop()
