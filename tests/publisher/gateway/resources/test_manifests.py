"""What holds for the objects of any plan: limits of names, order, and the same decisions as plain Envoy's."""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lupa
import pytest
import yaml
from gatewayrules import NOBODY, Taken, leads, passed, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.records import ModelType, Protocol, PublicationRecord
from extauth.request.route_names import is_by_path, read_rule
from publisher.envoy.files import PUBLICATION_HEADER
from publisher.gateway.options import GateTrust, GatewayOptions, HostInfrastructure, MeterBy, SecretRef
from publisher.gateway.resources.manifests import base, carried, published, text
from publisher.gateway.resources.naming import identity
from publisher.gateway.resources.routes import MAX_RULES
from publisher.plan import Plan, plan
from runtime.grpc.front import QueueLimits
from tests.e2e.proxy import publication

OPTIONS = GatewayOptions(gate=("unix:/run/gate.sock",))
ALL_OPTIONS = [
    OPTIONS,
    replace(OPTIONS, patches=False, meter=MeterBy.NONE, per_publication_routes=True),
    replace(OPTIONS, patches=False, meter=MeterBy.POLICY, per_publication_routes=True),
    replace(OPTIONS, listeners=("http", "https"), gateway="other", origins=("https://app.example",), trusted_hops=2),
    replace(
        OPTIONS,
        gate=("10.0.0.1:9001", "10.0.0.2:9001"),
        endings=("10.0.0.1:9101", "10.0.0.2:9101"),
        meter=MeterBy.POLICY,
        gate_tls=GateTrust(name="gate.test", ca="gate-ca", client=SecretRef(name="gate-client", namespace="secrets")),
        host=HostInfrastructure(
            envoy_version="1.40.0",
            http_port=80,
            https_port=443,
            certificates=[SecretRef(name=name, namespace="web") for name in ("one", "two")],
        ),
        from_files=True,
    ),
]

_KINDS = [
    {"type": ModelType.TRADITIONAL, "protocol": Protocol.KSERVE_V1},
    {"type": ModelType.TRADITIONAL, "protocol": Protocol.KSERVE_V2},
    {"type": ModelType.TRADITIONAL, "protocol": Protocol.HTTP},
    {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI},
]
_RESTS = ["/a", "/a/b", "/a/predict"]
_PATHS = ["/v1", "/v1/models", "/models", *(root + rest for root in ("/v1/models", "/models", "") for rest in _RESTS)]
_NAMED = ["http://m.test", "https://m.test", "http://m.test:81", "https://m.test:81"]
_URLS = [*_NAMED, "http://10.0.0.1:80", "http://[::1]:8"]
_HOSTS = ["one.test", "two.test"]
_DRAWN = st.tuples(*(st.sampled_from(choices) for choices in (_HOSTS, _PATHS, _URLS, _KINDS)))


def _record(number: int, host: str, path: str, url: str, kind: dict[str, Any]) -> PublicationRecord:
    return publication(f"000{number:a>16}", path, url, host=host, model="m", created_at_ms=number, **kind)


RECORDS = st.lists(_DRAWN, max_size=20).map(lambda drawn: [_record(number, *one) for number, one in enumerate(drawn)])
"""Publications, often beside or inside one another."""
PLANS = RECORDS.map(plan)

_LLM = publication("u1", "/llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)

properties = settings(max_examples=60, deadline=None)


def _plain(made: Plan, host: str, path: str) -> Taken:
    """Where plain Envoy sends a call without our header: the first route that fits, as ``envoy.files`` writes them."""
    for found in (one for one in made.hosts if one.name == host):
        for route in (one for one in found.routes if not one.chosen):
            matched = f"{route.path}/" if route.below else route.path
            if path.startswith(matched) if route.below else path == matched:
                if route.waits:
                    return Taken(route.publication, by_path=True)
                return Taken(route.publication, path=route.rewrite + path.removeprefix(matched))
        if any(path.startswith(f"{one.path}/") if one.below else path == one.path for one in found.entries):
            return Taken("", host, by_path=True)
        if found.openai and path.startswith("/v1/"):
            return Taken("", host)
    return NOBODY


def _called(made: Plan) -> Iterator[tuple[str, str]]:
    """Calls at, below and beside each path that is published."""
    for host in made.hosts:
        for path in {route.path for route in host.routes} | {
            "/v1/models/a",
            "/v1/chat/completions",
            "/v2",
            "/v2/models/a",
        }:
            for call in (
                path,
                f"{path}/",
                f"{path}/predict",
                f"{path}/x/y",
                f"{path}x",
                path.rpartition("/")[0] or "/",
            ):
                yield host.name, call


@properties
@given(made=PLANS, per_publication=st.booleans())
def test_it_decides_as_plain_envoy_does(made: Plan, per_publication: bool) -> None:  # noqa: FBT001  drawn
    """Every call reaches the same publication's server by the same path, or the host's entry, or nobody."""
    objects = published(made, replace(OPTIONS, per_publication_routes=per_publication))
    for host, path in _called(made):
        assert passed(objects, host, path) == _plain(made, host, path), path


@properties
@given(made=PLANS, options=st.sampled_from(ALL_OPTIONS))
def test_no_openai_server_is_reached_without_a_word_of_checks(made: Plan, options: GatewayOptions) -> None:
    """Without the header that Check alone can set no call has a way there, even where no filter asked Check.

    And every call to one has its body read, wherever its rules stand.
    """
    objects = published(made, options)
    openai = {route.publication for host in made.hosts for route in host.routes if route.reads_body}
    for route in (obj for obj in objects if obj["kind"] == "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            uid, entry = read_rule(rule["name"])
            waits_for_body = bool(entry) and not is_by_path(rule["name"])
            assert (uid in openai or waits_for_body) <= ("tollkeeper.dev/bodies" in route["metadata"]["labels"])
            if uid in openai and leads(rule):
                wanted = [{"type": "Exact", "name": PUBLICATION_HEADER, "value": uid}]
                assert [match["headers"] for match in rule["matches"]] == [wanted]
    (policy,) = (obj for obj in base(options) if obj["kind"] == "ClientTrafficPolicy")
    removed = policy["spec"]["headers"]["earlyRequestHeaders"]["removeOnMatch"]
    assert any(one["type"] == "Prefix" and PUBLICATION_HEADER.startswith(one["value"]) for one in removed)


@properties
@given(made=PLANS, from_files=st.booleans())
def test_the_policies_of_bodies_hold_for_every_route_that_needs_them(made: Plan, from_files: bool) -> None:  # noqa: FBT001  drawn
    """And for no other: bodies of traditional calls are not read. In files they name routes, in a cluster labels do."""
    options = replace(OPTIONS, from_files=from_files, meter=MeterBy.POLICY)
    objects = published(made, options)
    labelled = [
        obj["metadata"]["name"]
        for obj in objects
        if obj["kind"] == "HTTPRoute" and obj["metadata"]["labels"].get("tollkeeper.dev/bodies") == "read"
    ]
    for kind in ("SecurityPolicy", "EnvoyExtensionPolicy"):
        (policy,) = (obj for obj in objects if obj["kind"] == kind)
        if from_files:
            assert [one["name"] for one in policy["spec"]["targetRefs"]] == labelled
        else:
            (selector,) = policy["spec"]["targetSelectors"]
            assert selector["matchLabels"] == {
                "tollkeeper.dev/gateway": "tollkeeper",
                "tollkeeper.dev/bodies": "read",
            }
    assert "tollkeeper-bodies" in labelled


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_a_publication_adds_no_filter_to_a_listener(options: GatewayOptions) -> None:
    """Without any there is a route for each policy that asks Check, on every listener, and no call gets anywhere by it.

    A listener that Envoy refuses would lack the filter of the first publication, whose routes would then be open.
    """
    standing = [obj for obj in published(plan([]), options) if obj["kind"] == "HTTPRoute"]
    assert ["tollkeeper.dev/bodies" in obj["metadata"]["labels"] for obj in standing] == [False, True]
    for route in standing:
        assert "hostnames" not in route["spec"]
        assert {name for rule in route["spec"]["rules"] for name in rule} == {"name", "matches", "filters"}


@properties
@given(made=PLANS)
def test_what_check_names_is_reached(made: Plan) -> None:
    """A call that waits at the entry goes to the publication whose uid Check sets, by the same path."""
    objects = published(made, OPTIONS)
    for host in (one for one in made.hosts if one.openai):
        path = "/v1/chat/completions"
        if _plain(made, host.name, path).openai_host:
            for route in (one for one in host.routes if one.chosen_by_body):
                found = taken(objects, host.name, path, {PUBLICATION_HEADER: route.publication})
                assert found == Taken(route.publication, path=path)
            assert taken(objects, host.name, path, {PUBLICATION_HEADER: "foreign"}).publication == ""


@properties
@given(made=PLANS)
def test_what_the_body_moves_is_moved(made: Plan) -> None:
    """Wherever a call can wait for its body's model, Check's header takes it to that model's server."""
    objects = published(made, OPTIONS)
    for host in (one for one in made.hosts if one.openai):
        uid = next(route.publication for route in host.routes if route.chosen_by_body)
        for _, path in _called(made):
            first = taken(objects, host.name, path, {}, "POST")
            if first.openai_host and not first.by_path:
                assert taken(objects, host.name, path, {PUBLICATION_HEADER: uid}, "POST").publication == uid


@properties
@given(made=PLANS, options=st.sampled_from(ALL_OPTIONS))
def test_names_and_counts_are_within_limits(made: Plan, options: GatewayOptions) -> None:
    """Of names, labels, rules and matches, whatever is published; and no two objects are one."""
    objects = (*base(options), *published(made, options))
    assert max(Counter(identity(obj) for obj in objects).values()) == 1
    for obj in objects:
        _assert_named_well(obj)
        if obj["kind"] == "HTTPRoute":
            rules = obj["spec"]["rules"]
            matches = [len(rule["matches"]) for rule in rules]
            assert 1 <= len(rules) <= MAX_RULES
            assert max(matches) <= 64
            assert sum(matches) < 128
            assert len({rule["name"] for rule in rules}) == len(rules)


def _assert_named_well(obj: Any) -> None:
    subdomain = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    metadata = obj["metadata"]
    assert len(metadata["name"]) <= 253
    assert re.fullmatch(subdomain, metadata["name"])
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "tollkeeper"
    assert all(
        re.fullmatch(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", one) for one in metadata["labels"].values()
    )
    for rule in obj["spec"].get("rules", ()):
        assert len(rule["name"]) <= 253
        assert re.fullmatch(subdomain, rule["name"])


@properties
@given(drawn=RECORDS, order=st.randoms())
def test_the_same_publications_make_the_same_text(drawn: list[PublicationRecord], order: Any) -> None:
    """In whatever order they come."""
    shuffled = list(drawn)
    order.shuffle(shuffled)
    assert text(published(plan(drawn), OPTIONS)) == text(published(plan(shuffled), OPTIONS))


@properties
@given(made=PLANS)
def test_every_publication_is_carried(made: Plan) -> None:
    """Each one of the plan by some route, and by one of its own where that is asked for."""
    everyone = {upstream.publication for upstream in made.upstreams}
    packed = [carried(obj) for obj in published(made, OPTIONS)]
    assert frozenset().union(*packed) == everyone
    own = [carried(obj) for obj in published(made, replace(OPTIONS, per_publication_routes=True))]
    assert sorted(uids for one in own for uids in one) == sorted(everyone)
    assert all(len(one) <= 1 for one in own)


@properties
@given(made=PLANS)
def test_a_backend_tells_its_content_by_its_name(made: Plan) -> None:
    """No two of one name differ, so none is ever merged into another."""
    objects = published(made, OPTIONS)
    backends = {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == "Backend"}
    assert len({json.dumps(obj["spec"]) for obj in backends.values()}) == len(backends)
    referred = {
        ref["name"] for obj in objects for rule in obj["spec"].get("rules", ()) for ref in rule.get("backendRefs", ())
    }
    assert referred == set(backends)


@properties
@given(made=PLANS)
def test_a_rule_leads_to_its_publications_own_server(made: Plan) -> None:
    """By TLS where its URL says so, and to that very port."""
    objects = published(made, OPTIONS)
    backends = {obj["metadata"]["name"]: obj["spec"] for obj in objects if obj["kind"] == "Backend"}
    servers = {upstream.publication: upstream.targets[0] for upstream in made.upstreams}
    for rule in (one for obj in objects for one in obj["spec"].get("rules", ()) if leads(one)):
        server = servers[rule["name"].partition(".")[0]]
        spec = backends[rule["backendRefs"][0]["name"]]
        (found,) = spec["endpoints"][0].values()
        assert ("tls" in spec, found["port"]) == (server.tls, server.port)
        told = found.get("hostname") or str(ipaddress.ip_address(found["address"]))
        assert told == server.hostname


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_the_policy_that_closes_the_gateway_comes_first(options: GatewayOptions) -> None:
    """It holds for the Gateway, and fails closed."""
    first = base(options)[0]
    assert first["kind"] == "SecurityPolicy"
    assert first["spec"]["targetRefs"][0]["kind"] == "Gateway"
    assert first["spec"]["extAuth"]["failOpen"] is False
    assert [obj["kind"] for obj in base(options)].count("SecurityPolicy") == 1


@properties
@given(made=PLANS, options=st.sampled_from(ALL_OPTIONS))
def test_a_policy_of_routes_asks_as_the_gateways_does(made: Plan, options: GatewayOptions) -> None:
    """It takes the place of the one that closes them, so but for the body, which takes its time, it says the same."""
    objects = (*base(options), *published(made, options))
    gateways, routes = (obj["spec"] for obj in objects if obj["kind"] == "SecurityPolicy")
    assert int(routes["extAuth"].pop("timeout").removesuffix("ms")) > QueueLimits().large_answer_ms
    assert routes["extAuth"].pop("bodyToExtAuth") == {"maxRequestBytes": options.max_body_bytes}
    assert routes["extAuth"] == {name: value for name, value in gateways["extAuth"].items() if name != "timeout"}
    assert routes.get("cors") == gateways.get("cors")
    others = [obj["spec"] for obj in objects if obj["kind"].endswith("TrafficPolicy")]
    assert [one["kind"] for spec in others for one in spec["targetRefs"]] == ["Gateway", "Gateway"]


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_the_text_is_read_as_it_is_meant(options: GatewayOptions) -> None:
    """By YAML's readers too: no name becomes a number or a truth."""
    objects = (*base(options), *published(plan([publication("u1", "/n"), publication("on", "/yes")]), options))
    assert list(yaml.safe_load_all(text(objects))) == list(objects)


@pytest.mark.parametrize("meter", [MeterBy.NONE, MeterBy.POLICY])
def test_nothing_is_patched_where_patches_are_forbidden(meter: MeterBy) -> None:
    """And bodies, endings and the body's models are there all the same."""
    options = replace(OPTIONS, patches=False, meter=meter)
    made = (*base(options), *published(plan([_LLM]), options))
    kinds = Counter(obj["kind"] for obj in made)
    assert not kinds["EnvoyPatchPolicy"]
    assert kinds["EnvoyExtensionPolicy"] == (meter is MeterBy.POLICY)
    names = {rule["name"] for obj in made for rule in obj["spec"].get("rules", ())}
    assert {"u1.below", "u1.below.checked", "u1.body"} <= names


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_every_call_ends_at_a_gate_and_in_the_usual_log(options: GatewayOptions) -> None:
    """Endings go to the gates' receivers; nobody who read the log before misses a line."""
    host = HostInfrastructure(envoy_version="1.40.0", http_port=80)
    options = replace(options, host=options.host or host, endings=options.endings or ("unix:/run/endings.sock",))
    made = base(options)
    (proxy,) = (obj["spec"] for obj in made if obj["kind"] == "EnvoyProxy")
    usual, endings = proxy["telemetry"]["accessLog"]["settings"]
    assert usual == {"sinks": [{"type": "File", "file": {"path": "/dev/stdout"}}]}
    (sink,) = endings["sinks"]
    (backend,) = (obj for obj in made if obj["metadata"]["name"].endswith("-endings") and obj["kind"] == "Backend")
    assert [ref["name"] for ref in sink["als"]["backendRefs"]] == [backend["metadata"]["name"]]
    assert len(backend["spec"]["endpoints"]) == len(options.endings)
    gate = next(obj for obj in made if obj["kind"] == "Backend" and obj["metadata"]["name"].endswith("-gate"))
    assert backend["spec"].get("tls") == gate["spec"].get("tls")
    kept = sink["als"]["backendSettings"]["http2"]["connectionKeepalive"]  # else a lost node's streams stay open
    assert int(kept["timeout"].rstrip("s")) < int(kept["interval"].rstrip("s"))  # Envoy Gateway's own rule


def test_envoy_ai_gateway_takes_the_place_of_the_bodys_rules() -> None:
    """The same header leads to the same server by its own resources, and by no HTTPRoute."""
    options = replace(OPTIONS, ai_gateway=True)
    made = published(plan([publication("u1", "/llm", type=ModelType.OPENAI, protocol=Protocol.OPENAI)]), options)
    (route,) = [obj for obj in made if obj["kind"] == "AIGatewayRoute"]
    (rule,) = route["spec"]["rules"]
    assert rule["name"] == "u1.body"
    assert rule["matches"] == [{"headers": [{"type": "Exact", "name": PUBLICATION_HEADER, "value": "u1"}]}]
    (backend,) = [obj for obj in made if obj["kind"] == "AIServiceBackend"]
    assert [ref["name"] for ref in rule["backendRefs"]] == [backend["metadata"]["name"]]
    others = [one for obj in made if obj["kind"] == "HTTPRoute" for one in obj["spec"]["rules"]]
    assert "u1.body" not in {one["name"] for one in others}


def test_a_patch_is_written_only_where_it_has_something_to_match() -> None:
    """Of gates where several are asked; of the meter by its option."""
    gates = replace(OPTIONS, gate=("10.0.0.1:9001", "10.0.0.2:9001"))

    def patched(options: GatewayOptions, *records: PublicationRecord) -> set[str]:
        made = (*base(options), *published(plan(records), options))
        return {obj["metadata"]["name"] for obj in made if obj["kind"] == "EnvoyPatchPolicy"}

    always = {"tollkeeper-hardened", "tollkeeper-replies", "tollkeeper-endings"}
    assert patched(replace(OPTIONS, meter=MeterBy.NONE), _LLM) == always
    assert patched(OPTIONS) == always | {"tollkeeper-meter"}
    assert patched(gates) == patched(OPTIONS)
    assert patched(gates, _LLM) == patched(OPTIONS) | {"tollkeeper-gates"}


def test_a_meter_for_all_routes_reads_answers_to_reserved_calls_only() -> None:
    """A traditional model's answer is nobody's to look through."""
    (policy,) = (obj for obj in base(OPTIONS) if obj["metadata"]["name"] == "tollkeeper-meter")
    (patch,) = policy["spec"]["jsonPatches"]
    value = patch["operation"]["value"]
    assert value["disabled"] is False
    script = value["typed_config"]["default_source_code"]["inline_string"]
    lua = lupa.LuaRuntime()
    lua.execute(script)
    lua.execute("""
        asked = 0
        function handle(reserved)
          local said = reserved and { reservation = "id" } or nil
          local metadata = { get = function() return said end }
          local info = { dynamicMetadata = function() return metadata end }
          local headers = { get = function() asked = asked + 1 end }
          return { streamInfo = function() return info end, headers = function() return headers end }
        end
        envoy_on_response(handle(false))
        before = asked
        envoy_on_response(handle(true))
    """)
    assert (lua.globals().before, lua.globals().asked > 0) == (0, True)


@pytest.mark.parametrize(("patches", "kind"), [(True, "GRPC"), (False, "TCP")])
def test_a_gate_is_asked_for_its_health_only_by_a_name_that_it_takes(patches: bool, kind: str) -> None:  # noqa: FBT001  a row
    """A patch gives that name; else all gates would seem to be ill, and a dead one would go on being asked."""
    options = replace(OPTIONS, gate=("10.0.0.1:9001", "10.0.0.2:9001"), patches=patches)
    objects = [*base(options), *published(plan([publication("iris", "/models/iris")]), options)]
    for policy in (one for one in objects if one["kind"] == "SecurityPolicy"):
        assert policy["spec"]["extAuth"]["grpc"]["backendSettings"]["healthCheck"]["active"]["type"] == kind
    patched = [
        patch["operation"]["path"]
        for one in objects
        if one["kind"] == "EnvoyPatchPolicy"
        for patch in one["spec"]["jsonPatches"]
        if "path" in patch["operation"]
    ]
    assert ("/health_checks/0/grpc_health_check/authority" in patched) is patches


@pytest.mark.parametrize("patches", [True, False])
def test_no_header_makes_another_call_of_the_checked_one(patches: bool) -> None:  # noqa: FBT001  a case
    """Every way of claiming another method or path is taken off before Check and the model see the call."""
    objects = base(replace(OPTIONS, patches=patches))
    (policy,) = (one for one in objects if one["kind"] == "ClientTrafficPolicy")
    removed = policy["spec"]["headers"]["earlyRequestHeaders"]["remove"]
    assert {"x-http-method-override", "x-http-method", "x-method-override"} <= set(removed)
    assert {"x-original-url", "x-rewrite-url"} <= set(removed)
