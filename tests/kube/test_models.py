"""Models and tenants from a real Kubernetes API server, by the process itself, with the chart's rights and no more.

KServe's controllers do not run here: what they say of a model is what a test patches into its status.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from adminprocess import AdminProcess, admin_process
from kubeapi import Act, Json, Kube
from ownvalkey import own_valkey
from upmachine import until

from catalog.keys.secrets import create_secrets

pytestmark = pytest.mark.kube

RULES = yaml.safe_load((Path(__file__).parents[2] / "helm/files/rbac-models.yaml").read_text())
PASSWORD = "a good password"
SLOW_S = 60
ISVC = "inferenceservices.serving.kserve.io"
CONDITION = """{.status.conditions[?(@.type=="Ready")].status}"""


class World:
    """A tenant's namespace in a cluster, seen by kubectl, and the admin that follows it, seen by its API."""

    def __init__(self, kube: Kube, admin: AdminProcess, namespace: str, tenant: str) -> None:
        self.kube = kube
        self.url = url = admin.url
        self.face_url = admin.face_url
        self.namespace = namespace
        self.tenant = tenant
        login = {"username": "admin", "password": PASSWORD}
        answer = requests.post(f"{url}/api/admin/login", json=login, timeout=30)
        self.headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(method, self.url + path, json=body, headers=self.headers, timeout=30)

    def publish_path(self, name: str = "my-model") -> str:
        return f"/api/models/{name}/publish?tenantId={self.tenant}"

    def publish(self, name: str = "my-model") -> requests.Response:
        """Publish it on a host of the tenant's own: all tests share one catalog."""
        config = {"tenantId": self.tenant, "publicHostname": f"{self.tenant}.example.com"}
        return self.ask("POST", f"/api/models/{name}/publish", {"config": config})

    def published(self, name: str = "my-model") -> str:
        """Publish a model that is there and ready; its key."""
        self.service(name)
        self.say(name)
        self.until_model(name, ready=True)
        made = self.publish(name)
        assert made.status_code == 201, made.text
        return str(made.json()["apiKey"])

    def model(self, name: str = "my-model") -> Json:
        """The model as it is shown; empty where there is none."""
        answer = self.ask("GET", f"/api/models/{name}?tenantId={self.tenant}")
        shown: Json = answer.json() if answer.ok else {}
        return shown

    def until_model(self, name: str = "my-model", **wanted: Any) -> Json:
        """Wait until it is shown so."""
        assert until(lambda: all(self.model(name).get(field) == value for field, value in wanted.items()), SLOW_S), (
            wanted,
            self.model(name),
            self.warnings(),
        )
        return self.model(name)

    def until_no_model(self, name: str = "my-model") -> None:
        assert until(lambda: not self.model(name), SLOW_S), self.model(name)

    def warnings(self) -> dict[str, str]:
        shown = requests.get(f"{self.face_url}/readyz", timeout=30).json()["warnings"]
        return {one["code"]: one["problem"] for one in shown}

    def service(self, name: str = "my-model", namespace: str = "", **annotations: str) -> None:
        """Apply an InferenceService, as whoever deploys models does."""
        metadata = {"name": name, "namespace": namespace or self.namespace, "annotations": annotations}
        spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://any/model"}}}
        self.kube.apply(
            {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}
        )

    def say(self, name: str = "my-model", *, ready: str = "True", url: str = "", message: str = "") -> None:
        """Say of it what KServe would."""
        condition = {"type": "Ready", "status": ready, "message": message}
        address = {"address": {"url": url or f"http://{name}.{self.namespace}.svc.cluster.local"}}
        self.kube.patch_status(ISVC, name, self.namespace, {"conditions": [condition], **address})

    def mirror(self, name: str = "my-model") -> dict[str, str]:
        """The data of a publication's ConfigMap; empty where there is none."""
        found = self.kube.listed("configmap", self.namespace)
        data = {one["metadata"]["name"]: one.get("data", {}) for one in found}
        return dict(data.get(f"published-model-{name}", {}))


@pytest.fixture(scope="module")
def admin(kube: Kube, valkey_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminProcess]:
    """An admin that may do what the chart lets it; a right that it lacked fails the tests."""
    home = kube.new_namespace()
    kubeconfig = kube.account("admin", home)
    kube.allow("admin", home, RULES)
    secrets = tmp_path_factory.mktemp("admin") / "secrets.json"
    create_secrets(secrets)
    with own_valkey(valkey_binary) as valkey, pytest.MonkeyPatch.context() as environment:
        environment.setenv("KUBECONFIG", str(kubeconfig))
        options = ("--redis-url", valkey.url, "--secrets-file", str(secrets), "--admin-password", PASSWORD)
        with admin_process(*options, "--models", "kubernetes") as started:
            yield started
    assert {act for act in kube.acts("admin", home) if not act.allowed} <= granted()
    kube.kubectl("delete", "namespace", home, "--wait=false")


def granted() -> set[Act]:
    """What the rules allow, refused: a server that has just started knows no rules for a moment."""
    return {
        Act(verb, group, resource, allowed=False)
        for rule in RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture
def world(kube: Kube, admin: AdminProcess) -> Iterator[World]:
    """A namespace labelled for a tenant of its own."""
    tenant = f"tenant-{uuid.uuid4().hex[:8]}"
    namespace = kube.new_namespace({"tollkeeper.dev/tenant": tenant})
    yield World(kube, admin, namespace, tenant)
    kube.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_models_life_in_a_cluster(world: World) -> None:
    """It appears, becomes ready, is published, moves, is not ready and goes; callers keep their key all along."""
    world.service()
    shown = world.until_model(ready=False, source="kubernetes")
    assert shown["message"] == "KServe has not said yet that it is ready"
    world.say(ready="False", message="Waiting for a node")
    world.until_model(message="Waiting for a node")
    refused = world.publish()
    assert (refused.status_code, refused.json()["code"]) == (409, "MODEL_NOT_READY")
    assert refused.json()["detail"] == "Model is not ready: Waiting for a node"
    world.say()
    world.until_model(ready=True, url=f"http://my-model.{world.namespace}.svc.cluster.local")
    made = world.publish()
    assert made.status_code == 201, made.text
    moved = f"http://my-model-predictor.{world.namespace}.svc.cluster.local"
    world.say(url=moved)
    world.until_model(ready=True, url=moved)
    world.say(ready="Unknown", url=moved, message="a new revision starts")
    world.until_model(ready=False, published=True, message="a new revision starts")
    world.kube.kubectl("delete", ISVC, "my-model", "-n", world.namespace)
    assert until(lambda: f"{world.tenant}/my-model" in world.warnings().get("models_gone", ""), SLOW_S)
    assert world.model()["published"]
    validated = requests.post(f"{world.url}/api/validate-api-key", json={"apiKey": made.json()["apiKey"]}, timeout=30)
    assert validated.json()["valid"]
    assert world.ask("DELETE", world.publish_path()).status_code == 204


def test_the_guides_commands_about_models(world: World) -> None:
    """Each as the guide has it, but for the name of the namespace."""
    world.published()
    assert until(lambda: bool(world.mirror()), SLOW_S), world.warnings()
    kubectl, namespace = world.kube.kubectl, world.namespace
    assert "my-model" in kubectl("get", "inferenceservices", "-n", namespace)
    assert kubectl("get", "inferenceservice", "my-model", "-n", namespace, "-o", f"jsonpath={CONDITION}") == "True"
    listed = kubectl("get", "configmap", "-n", namespace).splitlines()
    assert [line.split()[0] for line in listed if "published-model" in line] == ["published-model-my-model"]
    backup = yaml.safe_load(kubectl("get", "configmap", "-n", namespace, "-o", "yaml"))
    (kept,) = [one for one in backup["items"] if one["metadata"]["name"] == "published-model-my-model"]
    assert kept["data"]["externalPath"] == "/models/my-model"
    assert kept["data"]["tenantId"] == world.tenant
    assert not any("tk_" in text for text in kept["data"].values())


def test_a_publications_mirror_lives_with_it(world: World) -> None:
    """It follows changes, is put back when somebody changes or removes it, and goes with the publication."""
    world.published()
    assert until(lambda: world.mirror().get("rateLimiting", "") != "", SLOW_S), world.warnings()
    world.ask("PUT", world.publish_path(), {"config": {"rateLimiting": {"requestsPerMinute": 7}}})
    assert until(lambda: '"requestsPerMinute": 7' in world.mirror().get("rateLimiting", ""), SLOW_S)
    patch = ("patch", "configmap", "published-model-my-model", "-n", world.namespace, "--type=merge", "-p")
    world.kube.kubectl(*patch, '{"data": {"externalPath": "/forged", "note": "mine"}}')
    assert until(lambda: world.mirror().get("externalPath") == "/models/my-model", SLOW_S)
    assert world.mirror()["note"] == "mine"
    world.kube.kubectl("delete", "configmap", "published-model-my-model", "-n", world.namespace)
    assert until(lambda: bool(world.mirror()), SLOW_S)
    assert world.ask("DELETE", world.publish_path()).status_code == 204
    assert until(lambda: not world.mirror(), SLOW_S)
    assert "kube-root-ca.crt" in {one["metadata"]["name"] for one in world.kube.listed("configmap", world.namespace)}


def test_a_mirror_is_known_by_who_applied_it(world: World) -> None:
    """A label that somebody takes away comes back; a copy that somebody applied, labels and all, is nobody's mirror."""
    world.published()
    assert until(lambda: bool(world.mirror()), SLOW_S), world.warnings()
    kubectl, name, label = world.kube.kubectl, "published-model-my-model", "tollkeeper.dev/publication"
    (there,) = [one for one in world.kube.listed("configmap", world.namespace) if one["metadata"]["name"] == name]
    labels, elsewhere = there["metadata"]["labels"], world.kube.new_namespace()
    metadata = {"name": name, "namespace": elsewhere, "labels": labels}
    world.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": there["data"]})
    kubectl("label", "configmap", name, "-n", world.namespace, f"{label}-")
    shown = ("get", "configmap", "-n", world.namespace, "-l", label, "-o", "name")
    assert until(lambda: name in kubectl(*shown), SLOW_S), world.warnings()
    assert name in kubectl("get", "configmap", "-n", elsewhere, "-o", "name")
    kubectl("delete", "namespace", elsewhere, "--wait=false")


def test_somebody_elses_config_map_is_left_alone(world: World) -> None:
    """One of the name of a mirror, without our labels, is told of; nothing of it changes."""
    metadata = {"name": "published-model-my-model", "namespace": world.namespace}
    world.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"of": "others"}})
    world.published()
    assert until(lambda: "somebody else's" in world.warnings().get("mirror_incomplete", ""), SLOW_S), world.warnings()
    assert world.mirror() == {"of": "others"}


def test_namespaces_come_and_go(world: World, kube: Kube) -> None:
    """A label makes a tenant's namespace and its loss unmakes it; the tenant and what is published stay."""
    world.published()
    world.service("other")
    world.until_model("other", ready=False)
    label = "tollkeeper.dev/tenant"
    kube.kubectl("label", "namespace", world.namespace, f"{label}-")
    world.until_no_model("other")
    world.until_model(ready=False, published=True)
    assert world.ask("GET", f"/api/tenants/{world.tenant}").status_code == 200
    assert until(lambda: not world.mirror(), SLOW_S)
    kube.kubectl("label", "namespace", world.namespace, f"{label}={world.tenant}")
    world.until_model(ready=True)
    assert until(lambda: bool(world.mirror()), SLOW_S)


def test_a_second_namespace_of_a_tenant(world: World, kube: Kube) -> None:
    """Its models are the tenant's too, but for one whose name the first has: that is told of."""
    second = kube.new_namespace({"tollkeeper.dev/tenant": world.tenant})
    first, last = sorted([world.namespace, second])
    world.service(namespace=first)
    world.service(namespace=last)
    world.service("only-there", namespace=last)
    assert world.until_model("only-there", source="kubernetes")["namespace"] == last
    assert world.until_model(source="kubernetes")["namespace"] == first
    told = f"{last}/my-model: namespace {first} has tenant {world.tenant}'s model of this name"
    assert until(lambda: told in world.warnings().get("models_unmatched", ""), SLOW_S), world.warnings()
    kube.kubectl("delete", "namespace", second, "--wait=false")


def test_an_api_server_that_is_away(world: World, kube: Kube) -> None:
    """Models stay, the operator is told; what changed before it came back to us arrives, whatever its version is."""
    world.service()
    world.say()
    world.until_model(ready=True)
    with kube.away():
        assert until(lambda: "models_behind" in world.warnings(), SLOW_S)
        assert world.model()["ready"]
    world.service("later")
    world.until_model("later", ready=False)
    assert until(lambda: "models_behind" not in world.warnings(), SLOW_S), world.warnings()
    kube.kubectl("delete", ISVC, "my-model", "-n", world.namespace)
    world.until_no_model()


def test_an_annotation_says_how_a_model_is_spoken_to(world: World) -> None:
    """And the model is of its type."""
    world.service(**{"tollkeeper.dev/protocol": "openai"})
    shown = world.until_model(protocol="openai")
    assert shown["type"] == "openai"
