"""A plan's routes as rules: what is matched, what the server sees, and what is nobody's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from catalog.records import UpstreamAuth
from extauth.credentials.carriers import CREDENTIAL_HEADERS
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.envoy.sink import FilesSink
from publisher.gateway.cluster.sink import ClusterSink
from publisher.gateway.folder.sink import FolderSink
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.backends import nobody
from publisher.gateway.resources.manifests import carried, fitting, published
from publisher.plan import plan
from tests.e2e.proxy import HOST, kserve_v2, openai, publication, stripped

OPTIONS = GatewayOptions(gate=("unix:/run/gate.sock",))

Json = dict[str, Any]


def _rules(*records: Any, options: GatewayOptions = OPTIONS) -> dict[str, Json]:
    routes = (obj["spec"] for obj in published(plan(records), options) if obj["kind"] == "HTTPRoute")
    return {rule["name"]: rule for route in routes if "hostnames" in route for rule in route["rules"]}


def _paths(rule: Json) -> list[tuple[str, str]]:
    return [(match["path"]["type"], match["path"]["value"]) for match in rule["matches"]]


def _rewrite(rule: Json) -> Json:
    (found,) = [each["urlRewrite"] for each in rule["filters"] if each["type"] == "URLRewrite"]
    return found


def test_a_kserve_model_has_exact_matches() -> None:
    """Each path of the model is matched whole and replaced whole."""
    rules = _rules(publication("u1", "/models/iris", "http://iris.test:8080", model="iris"))
    own = {"u1.status", "u1.predict", "u1.explain"}
    assert set(rules) == {*own, "u1.kserve", "u1.named", "kserve.api.example.test", "closed"}
    assert _paths(rules["u1.predict"]) == [("Exact", "/models/iris/predict")]
    new_path = {"type": "ReplaceFullPath", "replaceFullPath": "/v1/models/iris:predict"}
    assert _rewrite(rules["u1.predict"]) == {"hostname": "iris.test", "path": new_path}


def test_a_publication_at_a_path_of_kserves_has_it_alone() -> None:
    """Of two rules with the same match the older object's would be taken."""
    rules = _rules(
        publication("u1", "/v2", "http://iris.test:8080", model="iris"),
        publication("u2", "/models/two", "http://two.test:8080", model="two"),
    )
    matches = [path for rule in rules.values() for path in _paths(rule)]
    assert [path for path in matches if path[1] == "/v2"] == [("Exact", "/v2"), ("PathPrefix", "/v2")]
    assert _paths(rules["u1.status"]) == [("Exact", "/v2")]
    assert _paths(rules["kserve.api.example.test"]) == [("Exact", "/"), ("PathPrefix", "/v1/models")]


def test_a_kserve_models_name_in_a_path_waits_for_check() -> None:
    """On the host and below the publication's path nothing but a 404 is; what Check writes leads on by its header."""
    rules = _rules(publication("u1", "/models/iris", "http://iris.test:8080", model="iris"))
    assert _paths(rules["kserve.api.example.test"]) == [
        ("Exact", "/"),
        ("Exact", "/v2"),
        ("PathPrefix", "/v2"),
        ("PathPrefix", "/v1/models"),
    ]
    assert _paths(rules["u1.kserve"]) == [("PathPrefix", "/models/iris")]
    assert _paths(rules["closed"]) == [("Exact", "/v1/models")]
    assert not any("backendRefs" in rules[name] for name in ("kserve.api.example.test", "u1.kserve", "closed"))
    (match,) = rules["u1.named"]["matches"]
    assert match["path"] == {"type": "PathPrefix", "value": "/:kserve"}
    assert match["headers"] == [{"type": "Exact", "name": PUBLICATION_HEADER, "value": "u1"}]
    assert _rewrite(rules["u1.named"])["path"] == {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}


def test_a_part_that_no_rule_may_be_called_has_dashes() -> None:
    """Names of rules know no underscores."""
    assert "u1.generate-stream" in _rules(kserve_v2("u1", "/models/iris"))


def test_an_openai_model_has_its_path_and_the_bodys() -> None:
    """Below its path the server's /v1; below the host's /v1, once Check has named it by the header."""
    rules = _rules(openai("u1", "/llm", model="m"))
    assert _paths(rules["u1.below"]) == _paths(rules["u1.below.checked"]) == [("PathPrefix", "/llm")]
    assert "backendRefs" not in rules["u1.below"]
    assert _rewrite(rules["u1.below.checked"])["path"] == {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}
    (body,) = rules["u1.body"]["matches"]
    assert body["path"] == {"type": "PathPrefix", "value": "/v1"}
    for name in ("u1.below.checked", "u1.body"):
        (match,) = rules[name]["matches"]
        assert match["headers"] == [{"type": "Exact", "name": "x-tollkeeper-publication", "value": "u1"}]


@pytest.mark.parametrize("from_files", [False, True])
def test_where_pages_may_call_waiting_calls_are_led_to_nobody(from_files: bool) -> None:  # noqa: FBT001  a case
    """Envoy's CORS filter looks at no rule that answers by itself. It is no server, and no key would go there."""
    options = dataclasses.replace(OPTIONS, origins=("https://app.example",), from_files=from_files)
    (backend,) = nobody(options)
    assert backend["spec"] == {"endpoints": [{"fqdn": {"hostname": "nobody.invalid", "port": 1}}]}
    rules = _rules(openai("u1", "/llm", model="m"), options=options)
    for name in ("u1.below", f"openai.{HOST}"):
        assert [one["name"] for one in rules[name]["backendRefs"]] == [backend["metadata"]["name"]]
        (taken_off,) = rules[name]["filters"]
        assert taken_off["requestHeaderModifier"] == {"remove": list(CREDENTIAL_HEADERS)}
    assert nobody(OPTIONS) == []


def test_a_bare_path_that_the_plan_leaves_to_the_entry_goes_there() -> None:
    """A prefix of Gateway API takes the bare path along; an exact match gives it back to the host."""
    rules = _rules(openai("u1", "/v1/models/b"))
    entry = rules[f"openai.{HOST}"]
    assert _paths(entry) == [("Exact", "/v1/models/b"), ("Exact", "/v1/models/b"), ("PathPrefix", "/v1")]
    assert [match.get("method") for match in entry["matches"]] == ["GET", "HEAD", None]
    assert _paths(rules["closed"]) == [("Exact", "/v1"), ("Exact", "/v1/models/b")]


def test_of_two_equal_matches_the_plans_first_is_written() -> None:
    """What is published at another's path of a model has it, as on plain Envoy."""
    rules = _rules(publication("u1", "/models/a"), publication("u2", "/models/a/predict"))
    assert _paths(rules["u2.status"]) == [("Exact", "/models/a/predict")]
    assert "u1.predict" not in rules


def test_a_publication_of_all_of_v1_hides_the_entry() -> None:
    """As on plain Envoy, where it is tried first."""
    rules = _rules(stripped("u1", "/v1"), openai("u2", "/llm"))
    assert f"openai.{HOST}" not in rules


def test_no_key_reaches_a_server() -> None:
    """Every rule to a server takes off all headers of credentials, and names the publication."""
    for name, rule in _rules(publication("u1", "/a"), openai("u2", "/b"), stripped("u3", "/c")).items():
        if "backendRefs" in rule:
            (modified,) = [each["requestHeaderModifier"] for each in rule["filters"] if "requestHeaderModifier" in each]
            assert modified["remove"] == list(CREDENTIAL_HEADERS)
            assert modified["set"] == [{"name": "x-tollkeeper-publication", "value": name.partition(".")[0]}]


def test_a_host_whose_entry_no_rule_can_be_named_after_is_refused() -> None:
    """With a reason by publication, as the plan does it; the others go on."""
    long_host = ".".join(["a" * 60] * 4) + ".test"
    fit = fitting(plan([openai("u1", "/a", host=long_host), openai("u2", "/b")]), OPTIONS)
    assert "host" in fit.refused["u1"]
    assert [upstream.publication for upstream in fit.upstreams] == ["u2"]


def test_a_uid_that_would_read_as_an_entry_is_refused() -> None:
    """No publication can take an entry's name."""
    for uid in ("openai", "kserve"):
        assert "uid" in fitting(plan([publication(uid, "/a")]), OPTIONS).refused[uid]


def test_a_route_says_whose_rules_it_carries() -> None:
    """By the names of its rules; the host's own rules are nobody's."""
    made = published(plan([publication("u1", "/a"), openai("u2", "/b")]), OPTIONS)
    by_name = {obj["metadata"]["name"]: carried(obj) for obj in made if obj["kind"] == "HTTPRoute"}
    assert sorted(by_name.values(), key=sorted) == [*[frozenset()] * 4, {"u1"}, {"u2"}]


def test_a_header_that_a_server_wants_is_written_at_the_server() -> None:
    """Behind Check and behind what takes the caller's off, by all routes by which a call may leave."""
    made = openai("u1", "/a", upstream_auth=UpstreamAuth("authorization", secret="one"))
    objects = published(plan([made]), OPTIONS)
    (filter_,) = [one for one in objects if one["kind"] == "HTTPRouteFilter"]
    assert filter_["spec"]["credentialInjection"] == {
        "header": "authorization",
        "overwrite": True,
        "credential": {"valueRef": {"group": "", "kind": "Secret", "name": "one"}},
    }
    leading = [one for obj in objects for one in obj["spec"].get("rules", ()) if "backendRefs" in one]
    assert len(leading) == 3
    for rule in leading:
        assert not [one for one in rule["filters"] if "extensionRef" in one]
        (server,) = rule["backendRefs"]
        assert [one["extensionRef"]["name"] for one in server["filters"]] == [filter_["metadata"]["name"]]
        (modified,) = [one["requestHeaderModifier"] for one in rule["filters"] if "requestHeaderModifier" in one]
        assert modified["remove"] == list(CREDENTIAL_HEADERS)


def test_a_publication_with_a_credential_has_routes_of_its_own() -> None:
    """Its clusters are named after the places of its rules, which must never be another publication's."""
    wanting = UpstreamAuth("authorization", secret="one")
    plain = [publication("u1", "/a"), openai("u2", "/b")]
    made = [publication("u3", "/c", upstream_auth=wanting), openai("u4", "/d", upstream_auth=wanting)]
    objects = published(plan([*plain, *made]), dataclasses.replace(OPTIONS, per_publication_routes=False))
    by_name = {obj["metadata"]["name"]: carried(obj) for obj in objects if obj["kind"] == "HTTPRoute"}
    assert (by_name["tollkeeper-u3"], by_name["tollkeeper-u4"]) == ({"u3"}, {"u4"})
    assert all({"u3", "u4"}.isdisjoint(uids) or len(uids) == 1 for uids in by_name.values())


def test_a_value_that_was_sent_is_none_that_an_envoy_gateway_can_have() -> None:
    """It would stand in a resource; nor can Envoy AI Gateway's routes have a filter of ours."""
    sent = openai("u1", "/a", upstream_auth=UpstreamAuth("authorization", sealed="v1:x"))
    named = openai("u2", "/b", upstream_auth=UpstreamAuth("authorization", secret="one"))
    assert "secret" in fitting(plan([sent, named]), OPTIONS).refused["u1"]
    assert "u2" not in fitting(plan([sent, named]), OPTIONS).refused
    refused = fitting(plan([named]), dataclasses.replace(OPTIONS, ai_gateway=True)).refused
    assert "BackendSecurityPolicy" in refused["u2"]


def test_a_gateway_says_what_it_can_give_servers() -> None:
    """So that the API refuses the other instead of taking a model off."""
    assert (FilesSink.injects_values, FilesSink.injects_secrets) == (True, False)
    assert (FolderSink.injects_values, ClusterSink.injects_values) == (False, False)
    assert FolderSink(Path(), OPTIONS, None).injects_secrets
    assert not FolderSink(Path(), dataclasses.replace(OPTIONS, ai_gateway=True), None).injects_secrets
