"""What openai models need besides routes, on a real API server: whom it concerns, and what it replaces."""

from __future__ import annotations

import pytest
from gatewayjudge import client_of
from kubeapi import Json
from prometheus_client import CollectorRegistry

from publisher.gateway.cluster.objects import Cluster
from publisher.gateway.options import GatewayOptions, MeterBy
from publisher.gateway.resources.manifests import published
from publisher.metrics import ClusterMetrics
from publisher.plan import plan
from tests.e2e.proxy import openai, publication
from tests.kube.conftest import Bench

pytestmark = pytest.mark.kube

IRIS = publication("iris", "/models/iris", "http://iris.test:8080")
LLAMA = openai("llama", "/models/llama", "https://llama.test")
MANAGED = "app.kubernetes.io/managed-by"
POLICY, BODIES = "tollkeeper-gate", "tollkeeper-bodies"


async def test_a_meter_that_is_not_accepted_fails_the_models_that_need_it(bench: Bench) -> None:
    """With Envoy Gateway's own words, Lua that is turned off, say; a traditional model needs none."""
    said = "Lua: Skipping Lua EnvoyExtensionPolicy as feature is disabled in the Gateway"
    bench.judge.refuses["tollkeeper-meter"] = ("Accepted", "Invalid", said)
    sink = bench.make(patches=False, meter=MeterBy.POLICY)
    (found,) = (await bench.apply(sink, IRIS, LLAMA)).items()
    assert found == ("llama", f"EnvoyExtensionPolicy tollkeeper-meter: Accepted is False (Invalid): {said}")
    assert await bench.apply(bench.make(patches=False, meter=MeterBy.NONE), IRIS, LLAMA) == {}
    assert bench.names("envoyextensionpolicies") == set()


async def test_what_brings_bodies_concerns_openai_models_alone(bench: Bench) -> None:
    """Its routes lead nowhere without it, and traditional ones go on."""
    bench.judge.refuses[BODIES] = ("Accepted", "Invalid", "no")
    assert set(await bench.apply(bench.make(), IRIS, LLAMA)) == {"llama"}


async def test_what_the_release_before_has_written_is_replaced(bench: Bench) -> None:
    """Its patches of bodies and endings go, once the routes are written that need none; the policy stays closed."""
    labels = {MANAGED: "tollkeeper", "tollkeeper.dev/gateway": "tollkeeper"}
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tollkeeper"}
    spec = {"targetRef": target, "type": "JSONPatch", "jsonPatches": []}
    async with client_of(bench.kubeconfig) as api:
        cluster = Cluster(api, ClusterMetrics(CollectorRegistry()))
        for what in ("meter", "settle", "told", "bodies"):
            old = _policy("EnvoyPatchPolicy", f"tollkeeper-{what}", bench.namespace, spec)
            await cluster.put(old | {"metadata": old["metadata"] | {"labels": labels}})
        (route,) = (
            obj
            for obj in published(plan([LLAMA]), GatewayOptions(gate=("unix:/g",), namespace=bench.namespace))
            if obj["kind"] == "HTTPRoute" and "llama" in str(obj["spec"]["rules"]) and "hostnames" in obj["spec"]
        )
        below = next(rule for rule in route["spec"]["rules"] if rule["name"] == "llama.below.checked")
        direct = below | {"name": "llama.below.json", "matches": [{"path": below["matches"][0]["path"]}]}
        metadata = {"name": "tollkeeper-llama", "namespace": bench.namespace, "labels": labels}
        await cluster.put(route | {"metadata": metadata, "spec": route["spec"] | {"rules": [direct]}})
    assert await bench.apply(bench.make(patches=False, meter=MeterBy.NONE), LLAMA) == {}
    assert bench.names("envoypatchpolicies") == set()
    assert bench.names("securitypolicies") == {POLICY, BODIES}
    rules = bench.kube.get("httproute", "tollkeeper-llama", bench.namespace)["spec"]["rules"]
    assert all("backendRefs" not in rule or "headers" in rule["matches"][0] for rule in rules)


def _policy(kind: str, name: str, namespace: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
