"""The publisher's sink on a real API server: applies, awaits judgement, removes, and leaves others' objects alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from gatewayjudge import client_of
from kubeapi import Act, Json
from msgspec import structs
from prometheus_client import CollectorRegistry

from publisher.gateway.cluster.objects import KINDS, Cluster, Unfit
from publisher.gateway.cluster.sink import ClusterSink
from publisher.gateway.options import GateTrust, GatewayOptions, MeterBy, SecretRef
from publisher.gateway.resources.manifests import base, published
from publisher.metrics import ClusterMetrics
from publisher.plan import plan
from publisher.sink import NotServed
from runtime.lifecycle import running
from tests.e2e.proxy import kserve_v2, openai, publication
from tests.kube.conftest import ACCOUNT, AI_RULES, RULES, Bench

pytestmark = pytest.mark.kube

IRIS = publication("iris", "/models/iris", "http://iris.test:8080")
LLAMA = openai("llama", "/models/llama", "https://llama.test")
MANAGED = "app.kubernetes.io/managed-by"
POLICY, BODIES = "tollkeeper-gate", "tollkeeper-bodies"
AWAY_S = 60
"""Long enough that every watch has come to its longest pause."""


async def until(holds: asyncio.Event) -> None:
    """Wait for an event, but not for ever."""
    async with asyncio.timeout(60):
        await holds.wait()


async def test_publications_are_live_once_all_is_accepted(bench: Bench) -> None:
    """Each with a route of its own, whoever asks is told that it is in force, and doing it again writes nothing."""
    sink = bench.make()
    assert await bench.apply(sink, IRIS, LLAMA) == {}
    assert {"tollkeeper-iris", "tollkeeper-llama"} <= bench.names("httproutes")
    assert await bench.make().served() == {"iris", "llama"}
    written = bench.counted("tollkeeper_cluster_writes_total", act="applied")
    assert await bench.apply(sink, IRIS, LLAMA) == {}
    assert bench.counted("tollkeeper_cluster_writes_total", act="applied") == written
    assert await bench.apply(bench.make(), IRIS, LLAMA) == {}
    assert bench.counted("tollkeeper_cluster_drift_total") == 0


async def test_no_route_before_the_gateway_is_closed(bench: Bench) -> None:
    """Nobody accepts the SecurityPolicy, so there is no way in; the publication says what is waited for."""
    bench.judge.ignores.add("SecurityPolicy")
    sink = bench.make(patience_s=1)
    assert "SecurityPolicy tollkeeper-gate: nobody looks after it" in (await bench.apply(sink, IRIS))["iris"]
    assert bench.names("httproutes") == set()
    assert bench.names("securitypolicies") == {POLICY}
    bench.judge.ignores.clear()
    async with asyncio.timeout(60):
        while await bench.apply(sink, IRIS):  # noqa: ASYNC110  as the publisher does
            await asyncio.sleep(0.1)
    assert "tollkeeper-iris" in bench.names("httproutes")


async def test_what_is_waited_for_can_be_asked(bench: Bench) -> None:
    """And whoever was waited for in vain delays nobody again."""
    bench.judge.ignores.add("HTTPRoute")
    sink = bench.make(patience_s=4)
    applying = asyncio.create_task(bench.apply(sink, IRIS))
    await _awaits(sink, "HTTPRoute tollkeeper-iris")
    assert "HTTPRoute tollkeeper-iris: nobody looks after it" in (await applying)["iris"]
    assert sink.waiting == ""
    sink._patience_s = 600
    async with asyncio.timeout(60):
        assert "iris" in await bench.apply(sink, IRIS)


async def test_a_policy_that_goes_while_it_is_judged_lets_no_route_through(bench: Bench) -> None:
    """Nobody is left to wait for, and still nothing is published before the gateway is closed."""
    bench.judge.ignores.add("SecurityPolicy")
    sink = bench.make()
    applying = asyncio.create_task(bench.apply(sink, IRIS))
    await _awaits(sink, f"SecurityPolicy {POLICY}")
    bench.kube.kubectl("delete", "securitypolicy", POLICY, "-n", bench.namespace)
    assert await applying == {"iris": f"SecurityPolicy {POLICY} is gone; it is applied again"}
    assert bench.names("httproutes") == set()
    bench.judge.ignores.clear()
    assert await bench.apply(sink, IRIS) == {}
    assert bench.names("securitypolicies") == {POLICY, BODIES}


async def test_a_route_that_goes_while_it_is_judged_is_not_live(bench: Bench) -> None:
    """It is told, and applied again at the next try."""
    bench.judge.ignores.add("HTTPRoute")
    sink = bench.make()
    applying = asyncio.create_task(bench.apply(sink, IRIS))
    await _awaits(sink, "HTTPRoute tollkeeper-iris")
    bench.kube.kubectl("delete", "httproute", "tollkeeper-iris", "-n", bench.namespace)
    bench.judge.ignores.clear()
    assert await applying == {"iris": "HTTPRoute tollkeeper-iris is gone; it is applied again"}
    assert await bench.apply(sink, IRIS) == {}
    assert "tollkeeper-iris" in bench.names("httproutes")


async def test_a_refused_route_fails_its_publication_alone(bench: Bench) -> None:
    """With its controller's own words."""
    bench.judge.refuses["tollkeeper-iris"] = ("ResolvedRefs", "BackendNotFound", "no such server")
    sink = bench.make()
    expected = "HTTPRoute tollkeeper-iris: ResolvedRefs is False (BackendNotFound): no such server"
    assert await bench.apply(sink, IRIS, LLAMA) == {"iris": expected}
    bench.judge.refuses.clear()
    async with asyncio.timeout(60):
        while await bench.apply(sink, IRIS, LLAMA):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_patch_that_does_not_work_fails_all(bench: Bench) -> None:
    """Where EnvoyPatchPolicy is forbidden, say, every publication says so."""
    bench.judge.refuses["tollkeeper-hardened"] = ("Accepted", "Disabled", "EnvoyPatchPolicy is disabled")
    assert set(await bench.apply(bench.make(), IRIS, LLAMA)) == {"iris", "llama"}
    assert await bench.apply(bench.make(patches=False), IRIS, LLAMA) == {}
    assert bench.names("envoypatchpolicies") == set()


async def test_what_is_not_published_any_more_goes_and_nothing_else(bench: Bench) -> None:
    """Routes and servers of ours go; the policies stay; whatever lacks one of our two signs is somebody else's."""
    sink = bench.make()
    await bench.apply(sink, IRIS, LLAMA)
    others = [
        _backend("plain", bench.namespace),
        _backend("labelled", bench.namespace, {MANAGED: "tollkeeper", "tollkeeper.dev/gateway": "tollkeeper"}),
    ]
    bench.kube.apply(*others)
    elsewhere = _backend("of-another-gateway", bench.namespace, {MANAGED: "tollkeeper", "tollkeeper.dev/gateway": "b"})
    bench.kube.apply(elsewhere, manager="tollkeeper")
    kept = {"plain", "labelled", "of-another-gateway", POLICY}
    assert await bench.apply(sink, LLAMA) == {}
    assert "tollkeeper-iris" not in bench.names("httproutes")
    assert "tollkeeper-llama" in bench.names("httproutes")
    assert await bench.apply(sink) == {}
    assert bench.names("httproutes") == {POLICY, BODIES}, "those that have both policies' filters stand"
    assert bench.names("backends") == kept
    assert bench.names("securitypolicies") == {POLICY, BODIES}


async def test_a_server_that_moves_is_served_throughout(bench: Bench) -> None:
    """The route points to the new server before the old one goes."""
    sink = bench.make()
    await bench.apply(sink, IRIS)
    before = bench.names("backends")
    assert await bench.apply(sink, publication("iris", "/models/iris", "http://other.test:8080")) == {}
    route = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
    (server,) = {ref["name"] for rule in route["spec"]["rules"] for ref in rule.get("backendRefs", ())}
    assert server in bench.names("backends") - before
    assert len(bench.names("backends")) == len(before)


async def test_a_field_of_another_is_told_and_left(bench: Bench) -> None:
    """Who edits a route holds what he edited: the publication says which field and who, and others go on."""
    sink = bench.make()
    await bench.apply(sink, IRIS, LLAMA)
    bench.edit("httproute", "tollkeeper-iris", {"spec": {"hostnames": ["mine.test"]}})
    why = (await bench.apply(sink, IRIS, LLAMA))["iris"]
    assert "HTTPRoute tollkeeper-iris" in why
    assert 'conflict with "kubectl-edit"' in why
    assert ".spec.hostnames" in why
    assert bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)["spec"]["hostnames"] == ["mine.test"]
    assert bench.counted("tollkeeper_cluster_unfit") == 1
    moved = publication("iris", "/models/iris", "http://other.test:8080")
    assert set(await bench.apply(sink, moved, LLAMA)) == {"iris"}
    assert len(bench.names("backends")) == 4, "the server that the edited route points to must not go"


async def test_an_object_of_our_name_is_not_taken(bench: Bench) -> None:
    """It was there before us: told, with who made it, and untouched."""
    bench.kube.apply(_route("tollkeeper-iris", bench.namespace), manager="somebody")
    assert "is not ours, but of somebody" in (await bench.apply(bench.make(), IRIS))["iris"]
    route = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
    assert route["spec"]["hostnames"] == ["theirs.test"]
    assert "labels" not in route["metadata"]


async def test_a_policy_of_our_name_lets_no_route_through(bench: Bench) -> None:
    """Where what closes the gateway is somebody else's, nothing is published."""
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tollkeeper"}
    theirs = _object("SecurityPolicy", POLICY, bench.namespace, {"targetRefs": [target]})
    bench.kube.apply(theirs, manager="somebody")
    assert "is not ours, but of somebody" in (await bench.apply(bench.make(), IRIS))["iris"]
    assert bench.names("httproutes") == set()


async def test_a_gate_of_our_name_lets_no_route_through(bench: Bench) -> None:
    """Where calls would ask somebody else's gate, nothing is published, and nothing is live."""
    bench.kube.apply(_backend(POLICY, bench.namespace), manager="somebody")
    found = await bench.apply(bench.make(), IRIS)
    assert found == {"iris": f"Backend {POLICY} in {bench.namespace} is not ours, but of somebody: it is left alone"}
    assert bench.names("httproutes") == set()


async def test_a_policy_that_takes_ours_place_is_told(bench: Bench) -> None:
    """A SecurityPolicy on a route replaces the gateway's: without its own key check the route would be open."""
    sink = bench.make()
    await bench.apply(sink, IRIS, LLAMA)
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "tollkeeper-iris"}
    bench.kube.apply(_object("SecurityPolicy", "cors", bench.namespace, {"targetRefs": [target]}))
    found = await bench.apply(sink, IRIS, LLAMA)
    assert found == {"iris": "SecurityPolicy cors takes the place of ours on HTTPRoute tollkeeper-iris: remove it"}


async def test_a_policy_on_a_listener_is_told_by_all(bench: Bench) -> None:
    """It replaces ours on every route there: nothing is live, and nothing new is published."""
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tollkeeper", "sectionName": "http"}
    bench.kube.apply(_object("SecurityPolicy", "cors", bench.namespace, {"targetRefs": [target]}))
    said = "SecurityPolicy cors takes the place of ours on a listener of Gateway tollkeeper: remove it"
    sink = bench.make()
    assert await bench.apply(sink, IRIS, LLAMA) == {"iris": said, "llama": said}
    assert bench.names("httproutes") == set()
    bench.kube.kubectl("delete", "securitypolicy", "cors", "-n", bench.namespace)
    assert await bench.apply(sink, IRIS, LLAMA) == {}


@pytest.mark.parametrize("harm", ["deleted", "unlabelled", "field removed"])
async def test_drift_is_noticed_and_repaired(bench: Bench, harm: str) -> None:
    """What somebody removes is noticed without a change of ours, put back, and counted."""
    sink, moved = bench.make(), asyncio.Event()
    await bench.apply(sink, IRIS)
    before = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
    async with running(sink.follow(moved.set), name="follow"):
        await _quiet(moved, bench)
        if harm == "deleted":
            bench.kube.kubectl("delete", "httproute", "tollkeeper-iris", "-n", bench.namespace)
        elif harm == "unlabelled":
            bench.edit("httproute", "tollkeeper-iris", {"metadata": {"labels": {MANAGED: None}}})
        else:
            bench.edit("httproute", "tollkeeper-iris", {"spec": {"hostnames": None}})
        await until(moved)
    assert await bench.apply(sink, IRIS) == {}
    after = bench.kube.get("httproute", "tollkeeper-iris", bench.namespace)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert bench.counted("tollkeeper_cluster_drift_total") == 1


async def test_a_judgement_that_changes_is_noticed(bench: Bench) -> None:
    """A controller that comes to refuse what it accepted makes the publisher look again."""
    sink, moved = bench.make(), asyncio.Event()
    await bench.apply(sink, IRIS)
    async with running(sink.follow(moved.set), name="follow"):
        await _quiet(moved, bench)
        bench.judge.refuses["tollkeeper-iris"] = ("Accepted", "NoMatchingParent", "the listener is gone")
        await until(moved)
    assert "the listener is gone" in (await bench.apply(sink, IRIS))["iris"]


async def test_others_objects_wake_nobody(bench: Bench) -> None:
    """What is in the namespace and not ours is not looked at again and again."""
    sink, moved = bench.make(), asyncio.Event()
    await bench.apply(sink, IRIS)
    async with running(sink.follow(moved.set), name="follow"):
        await _quiet(moved, bench)
        bench.kube.apply(_route("theirs", bench.namespace), _backend("theirs", bench.namespace))
        bench.kube.kubectl("delete", "httproute", "tollkeeper-iris", "-n", bench.namespace)
        await until(moved)
        await bench.apply(sink, IRIS)
    assert bench.counted("tollkeeper_cluster_drift_total") == 1


@pytest.mark.timeout(300)
async def test_a_server_that_was_away_a_minute_is_followed_again(bench: Bench) -> None:
    """Killed, it is away for a while: said so at once, nothing is lost, and what changed at its return is noticed."""
    sink, moved = bench.make(), asyncio.Event()
    await bench.apply(sink, IRIS)
    async with running(sink.follow(moved.set), name="follow"):
        await _quiet(moved, bench)
        for number in range(3):  # the store's version moves on, past what the watches have heard
            bench.kube.apply(_config_map(f"filler-{number}", bench.namespace))
        with bench.kube.away():
            async with asyncio.timeout(30):
                with pytest.raises(NotServed, match="cannot be reached"):
                    await bench.apply(sink, IRIS)
                while not bench.counted("tollkeeper_cluster_watch_faults_total", cause="away"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await asyncio.sleep(AWAY_S)
        moved.clear()
        bench.kube.kubectl("delete", "httproute", "tollkeeper-iris", "-n", bench.namespace)
        await until(moved)
        async with asyncio.timeout(60):
            while "tollkeeper-iris" not in bench.names("httproutes"):
                await bench.apply(sink, IRIS)
    assert bench.counted("tollkeeper_cluster_watch_faults_total", cause="expired") > 0


async def test_a_store_that_hangs_holds_nobody_up(bench: Bench) -> None:
    """The API server answers, its etcd does not: an end is made of it."""
    sink = bench.make()
    await bench.apply(sink, IRIS)
    bench.kube.plane.etcd.pause()
    try:
        async with asyncio.timeout(60):
            with pytest.raises(NotServed):
                await bench.apply(sink, IRIS, LLAMA)
    finally:
        bench.kube.plane.etcd.go_on()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await bench.apply(sink, IRIS, LLAMA) == {}
            except NotServed:
                await asyncio.sleep(0.2)
            else:
                break


async def test_every_right_is_used_and_no_other_is_asked_for(bench: Bench) -> None:
    """Publishing, unpublishing and following ask for what the chart's Role grants: all of it, and nothing else.

    That an object is created is no act of its own for the server: it is a patch, for which both rights are wanted.
    """
    sink = bench.make(meter=MeterBy.POLICY)
    moved = asyncio.Event()
    async with running(sink.follow(moved.set), name="follow"):
        await bench.apply(bench.make(meter=MeterBy.PATCH), IRIS, LLAMA)
        await bench.apply(sink, IRIS, LLAMA)
        await bench.apply(bench.make(meter=MeterBy.NONE))
        async with asyncio.timeout(60):
            while bench.kube.acts(ACCOUNT, bench.namespace) < _asked():  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    assert bench.kube.acts(ACCOUNT, bench.namespace) == _asked()


async def test_envoy_ai_gateway_has_the_models_that_bodies_name(bench: Bench) -> None:
    """Routes of its own, live when it accepts them and gone when they are not wanted; every right on them is used.

    Their form is held to its CRDs; no Envoy AI Gateway runs here.
    """
    bench.kube.allow(ACCOUNT, bench.namespace, [*RULES, *AI_RULES], within=bench.namespace)
    sink = bench.make(ai_gateway=True)
    refused = ("Accepted", "NotAccepted", "no such server")
    bench.judge.refuses["tollkeeper-ai-llama"] = refused
    moved = asyncio.Event()
    async with running(sink.follow(moved.set), name="follow"):
        why = await bench.apply(sink, IRIS, LLAMA)
        assert why == {"llama": "AIGatewayRoute tollkeeper-ai-llama: Accepted is False (NotAccepted): no such server"}
        bench.judge.refuses.clear()
        async with asyncio.timeout(60):
            while await bench.apply(sink, IRIS, LLAMA):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        route = bench.kube.get("aigatewayroute", "tollkeeper-ai-llama", bench.namespace)
        (server,) = {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
        assert bench.names("aiservicebackends") == {server}
        assert await bench.apply(sink, IRIS) == {}
        assert bench.names("aigatewayroutes") == bench.names("aiservicebackends") == set()
        async with asyncio.timeout(60):
            while not _asked(*AI_RULES) - _asked() <= bench.kube.acts(ACCOUNT, bench.namespace):  # noqa: ASYNC110
                await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("verb", "kind", "said"),
    [
        ("list", "HTTPRoute", 'cannot list resource "httproutes"'),
        ("create", "SecurityPolicy", 'cannot create resource "securitypolicies"'),
        ("patch", "Backend", 'cannot patch resource "backends"'),
    ],
)
async def test_a_right_that_lacks_is_named(bench: Bench, verb: str, kind: str, said: str) -> None:
    """With verb and resource, as the server has it; each of them is needed."""
    bench.forbid(verb, kind)
    with pytest.raises(NotServed, match=f"the publisher lacks a right: .*{said}"):
        await bench.apply(bench.make(), IRIS)


async def test_a_right_to_remove_that_lacks_is_named(bench: Bench) -> None:
    """The publication goes on until it can be removed."""
    sink = bench.make()
    await bench.apply(sink, IRIS)
    bench.forbid("delete", "HTTPRoute")
    with pytest.raises(NotServed, match='cannot delete resource "httproutes"'):
        await bench.apply(sink)


async def test_resources_that_are_not_installed_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose they are, and which; a version that this cluster has not is as good as none."""
    newer = replace(KINDS["SecurityPolicy"], version="v9")
    monkeypatch.setitem(KINDS, "SecurityPolicy", newer)
    with pytest.raises(NotServed, match=r"Envoy Gateway's CRDs are not installed: .* securitypolicies.* of version v9"):
        await bench.apply(bench.make(), IRIS)


async def test_a_field_that_the_cluster_does_not_know_is_that_objects_fault(bench: Bench) -> None:
    """An Envoy Gateway that is too old for one object does not keep the others back."""
    async with client_of(bench.kubeconfig) as api:
        cluster = Cluster(api, ClusterMetrics(CollectorRegistry()))
        with pytest.raises(Unfit, match=r"Backend newer: .*\.spec\.invented"):
            await cluster.put(_object("Backend", "newer", bench.namespace, {"invented": True}))


async def test_a_namespace_that_is_not_there_is_named(bench: Bench) -> None:
    """Nothing is taken for missing CRDs that is something else."""
    bench.kube.allow(ACCOUNT, bench.namespace, RULES)
    with pytest.raises(NotServed, match='namespaces "not-there" not found'):
        await bench.apply(bench.make(namespace="not-there"), IRIS)


OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without patches": {"patches": False, "meter": MeterBy.NONE},
    "metered by a policy": {"patches": False, "meter": MeterBy.POLICY},
    "two listeners": {"listeners": ("http", "https")},
    "workers": {"gate": ("unix:/run/gate-0.sock", "unix:/run/gate-1.sock")},
    "a gate elsewhere": {"gate": ("gate.default.svc:9000", "gate.default.svc:9001")},
    "a gate's address": {"gate": ("[fd00::1]:9000",)},
    "a gate with TLS": {
        "gate": ("gate.default.svc:9000",),
        "gate_tls": GateTrust(name="gate", ca="gate-ca", client=SecretRef(name="envoy")),
    },
    "pages": {"origins": ("https://app.example",)},
    "proxies": {"trusted_hops": 2, "max_body_bytes": 1_000_000},
    "packed": {"per_publication_routes": False},
    "Envoy AI Gateway": {"ai_gateway": True},
    "Envoy AI Gateway, packed": {"ai_gateway": True, "per_publication_routes": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_the_cluster_takes_all_that_we_write(bench: Bench, options: dict[str, Any]) -> None:
    """Every object passes its resource's own rules, with no field that the resource does not know."""
    given: dict[str, Any] = {"gate": ("unix:/run/gate.sock",), "per_publication_routes": True} | options
    chosen = GatewayOptions(namespace=bench.namespace, **given)
    v2 = kserve_v2("triton", "/models/triton", "http://[::1]:8000")
    wanted = plan([IRIS, LLAMA, v2, structs.replace(IRIS, uid="other", host="other.test")])
    for obj in (*base(chosen), *published(wanted, chosen)):
        path = KINDS[obj["kind"]].path(bench.namespace, obj["metadata"]["name"])
        params = {"fieldManager": "tollkeeper", "dryRun": "All", "fieldValidation": "Strict"}
        await bench.judge.api.ask("PATCH", path, params=params, body=obj, content_type="application/apply-patch+yaml")


def _asked(*more: Json) -> set[Act]:
    return {
        Act(verb, group, resource)
        for rule in (*RULES, *more)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb != "create"
    }


async def _awaits(sink: ClusterSink, what: str) -> None:
    """Wait until a judgement is waited for."""
    async with asyncio.timeout(60):
        while what not in sink.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _quiet(moved: asyncio.Event, bench: Bench) -> None:
    """Wait until every watch has heard what is there, and nothing moves any more."""
    async with asyncio.timeout(60):
        while len({act for act in bench.kube.acts(ACCOUNT, bench.namespace) if act.verb == "watch"}) < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        while True:
            moved.clear()
            await asyncio.sleep(0.5)
            if not moved.is_set():
                return


def _object(kind: str, name: str, namespace: str, spec: Json, group: str = "gateway.envoyproxy.io/v1alpha1") -> Json:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _backend(name: str, namespace: str, labels: dict[str, str] | None = None) -> Json:
    made = _object("Backend", name, namespace, {"endpoints": [{"fqdn": {"hostname": "a.test", "port": 80}}]})
    return made | {"metadata": made["metadata"] | ({"labels": labels} if labels else {})}


def _route(name: str, namespace: str) -> Json:
    spec = {"parentRefs": [{"name": "tollkeeper"}], "hostnames": ["theirs.test"]}
    return _object("HTTPRoute", name, namespace, spec, "gateway.networking.k8s.io/v1")


def _config_map(name: str, namespace: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
