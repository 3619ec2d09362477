"""The real Envoy Gateway on the real API server takes what the publisher writes, and its Envoy does what it says."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
from adminprocess import admin_process
from authority import Authority
from clustergateway import ClusterGateway, cluster_gateway
from envoygateway import ENVOY_VERSION
from gatebench import Catalog
from gateprocess import GateProcess, gate_process
from kubeapi import Act, Json, Kube
from upmachine import until
from valkeys import free_port, running_valkey

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, Kind, ModelType, Protocol, PublicationRecord
from publisher.gateway.endings import endings_backends
from publisher.gateway.options import GatewayOptions, HostInfrastructure
from publisher.gateway.resources.infrastructure import infrastructure
from tests.e2e.proxy import HOST, Upstream, short_folder
from tests.kube.conftest import ACCOUNT, RULES

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

LIVE_S = 120
OTHER_HOST = "other.test"
"""There nothing is published."""


@dataclass
class Machine:
    """A cluster, its gateway, a gate and an admin; ``iris`` is published and ``key`` is good for it."""

    kube: Kube
    namespace: str
    gateway: ClusterGateway
    gate: GateProcess
    catalog: Catalog
    admin_face: str
    port: int
    https_port: int
    authority: Authority
    iris: PublicationRecord
    llm: PublicationRecord
    key: str

    def status(self, path: str, **headers: str) -> int:
        """Call the gateway."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.get(url, headers={"host": HOST} | headers, timeout=20).status_code

    def ask_by_tls(self, body: Json) -> tuple[int, str | None]:
        """Let the body decide; the status, and the model server that answered."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        with (
            socket.create_connection(("127.0.0.1", self.https_port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as connection,
        ):
            call = HTTPConnection(HOST)
            call.sock = connection
            headers = {"content-type": "application/json", "x-api-key": self.key}
            call.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = call.getresponse()
            return answer.status, json.loads(answer.read()).get("upstream")

    @property
    def live(self) -> float:
        """How many publications are live, as the admin counts them."""
        lines = requests.get(f"{self.admin_face}/metrics", timeout=20).text.splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith('tollkeeper_publications{state="live"}')
        )

    def conditions(self, resource: str) -> dict[str, set[str]]:
        """By object what is true of it."""
        found = {}
        for obj in self.kube.listed(resource, self.namespace):
            found[obj["metadata"]["name"]] = {one["type"] for one in _said(obj) if one["status"] == "True"}
        return found


def _https(name: str, hostname: str, port: int) -> Json:
    """A listener beside the first one, with its certificate in a Secret of its name."""
    tls = {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": name}]}
    allowed = {"namespaces": {"from": "Same"}}
    return {"name": name, "protocol": "HTTPS", "port": port, "hostname": hostname, "tls": tls, "allowedRoutes": allowed}


def _certificate(name: str, namespace: str, files: tuple[Path, Path]) -> Json:
    texts = dict(zip(("tls.crt", "tls.key"), (file.read_text() for file in files), strict=True))
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/tls",
        "stringData": texts,
    }


def _said(obj: Json) -> list[Json]:
    status: Json = obj.get("status") or {}
    entries = [status, *status.get("parents", ()), *status.get("ancestors", ())]
    return [one for entry in entries for one in entry.get("conditions", ())]


@pytest.fixture(scope="module")
def machine(kube: Kube, valkey_binary: str) -> Iterator[Machine]:
    """All of it, with two publications live by the gateway's own conditions."""
    namespace, port, https_port = kube.new_namespace(), free_port(), free_port()
    name = namespace  # of the Gateway and, in the whole cluster, of its class
    account = kube.account(ACCOUNT, namespace)
    kube.allow(ACCOUNT, namespace, RULES, within=namespace)
    host = HostInfrastructure(envoy_version=ENVOY_VERSION, http_port=port)
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        heard = f"unix:{folder}/endings.sock"
        told = GatewayOptions(gate=("unix:/gate",), endings=(heard,), namespace=namespace, gateway=name, host=host)
        made_by_the_operator = [*endings_backends(told), *infrastructure(told)]
        valkey = stack.enter_context(running_valkey(valkey_binary))
        secrets = create_secrets(folder / "secrets.json")
        stores = (valkey.url, folder / "secrets.json")
        gate = stack.enter_context(gate_process(*stores, "--gateway-namespace", namespace, "--endings-listen", heard))
        gateway = stack.enter_context(cluster_gateway(folder, kube))
        authority = Authority(folder, "authority")
        for listener, hostname in {"other": OTHER_HOST, "web": HOST}.items():
            made_by_the_operator[-1]["spec"]["listeners"].append(_https(listener, hostname, https_port))
            kube.apply(_certificate(listener, namespace, authority.give(hostname, alone=True)))
        kube.apply(*made_by_the_operator)
        stack.callback(kube.kubectl, "delete", f"gatewayclass/{name}", f"namespace/{namespace}", "--wait=false")
        iris, llm = (stack.enter_context(Upstream(name)) for name in ("iris", "llm"))
        catalog = Catalog(valkey.url, secrets)
        catalog.default_host = HOST
        catalog.tenant()
        openai: dict[str, Any] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI, "path": "/v1/models/llm"}
        published = (
            catalog.publication(model="iris", url=iris.url),
            catalog.publication(model="llm", url=llm.url, **openai),
        )
        catalog.add(HostRecord(HOST, {one.path: one.uid for one in published}, {"tenant-a/llm": published[1].uid}))
        _, key = catalog.key(*published)
        options = {
            "redis-url": valkey.url,
            "secrets-file": stores[1],
            "publish-to": "cluster",
            "kubeconfig": account,
            "gateway-namespace": namespace,
            "gateway-name": name,
            "gateway-listeners": "http,other",
            "gate-targets": gate.target,
            "check-timeout-ms": 10_000,
        }
        admin = stack.enter_context(admin_process(*(f"--{name}={value}" for name, value in options.items())))
        gateway.start()
        ports = (port, https_port)
        made = Machine(kube, namespace, gateway, gate, catalog, admin.face_url, *ports, authority, *published, key)
        assert until(lambda: made.live == 2, LIVE_S), (_standings(made), gateway.told())
        yield made


def _standings(machine: Machine) -> list[Json]:
    resources = ("httproutes", "securitypolicies", "envoypatchpolicies", "clienttrafficpolicies", "gateways")
    return [
        one for resource in resources for obj in machine.kube.listed(resource, machine.namespace) for one in _said(obj)
    ]


def test_everything_is_accepted(machine: Machine) -> None:
    """By the gateway's controller itself: the gateway, what closes it, every route and every patch."""
    assert machine.conditions("gateways")[machine.namespace] >= {"Accepted"}
    closing = machine.conditions("securitypolicies")
    assert closing.keys() == {f"tollkeeper-{machine.namespace}-{what}" for what in ("gate", "bodies")}
    assert all("Accepted" in conditions for conditions in closing.values())
    routes = machine.conditions("httproutes")
    assert {f"tollkeeper-{machine.iris.uid}", f"tollkeeper-{machine.llm.uid}"} <= routes.keys()
    assert all(conditions >= {"Accepted", "ResolvedRefs"} for conditions in routes.values())
    patches = machine.conditions("envoypatchpolicies")
    assert f"tollkeeper-{machine.namespace}-meter" in patches
    assert all(conditions >= {"Accepted", "Programmed"} for conditions in patches.values())


def test_a_call_needs_its_key(machine: Machine) -> None:
    """And reaches its model with it, through Envoy and the gate."""
    assert until(lambda: machine.status("/models/iris", **{"x-api-key": machine.key}) == 200, 60)
    assert machine.status("/models/iris") == 401
    assert machine.status("/models/iris", **{"x-api-key": f"{machine.key}x"}) == 401
    assert machine.status("/models/other", **{"x-api-key": machine.key}) == 404


def test_a_call_is_decided_by_its_body_and_settled(machine: Machine) -> None:
    """Envoy reads it for the gate, goes to the model that it names, and tells the gate how it ended."""
    before = machine.gate.metric("tollkeeper_settlements_total")
    url = f"http://127.0.0.1:{machine.port}/v1/chat/completions"
    headers = {"host": HOST, "x-api-key": machine.key}
    answer = requests.post(url, json={"model": "llm", "max_tokens": 5}, headers=headers, timeout=20)
    assert (answer.status_code, answer.json()["upstream"]) == (200, "llm")
    assert until(lambda: machine.gate.metric("tollkeeper_settlements_total") > before, 60), machine.gateway.told()


def test_each_https_listener_of_a_port_reads_bodies_for_its_own_host(machine: Machine) -> None:
    """The second one's too, although Envoy has one listener for both and nothing is published on the first one's."""
    before = machine.gate.metric("tollkeeper_settlements_total")
    answers = []

    def served() -> bool:
        answers.append(machine.ask_by_tls({"model": "llm", "max_tokens": 5}))
        return answers[-1] == (200, "llm")

    assert until(served, 60), answers
    assert until(lambda: machine.gate.metric("tollkeeper_settlements_total") > before, 60), machine.gateway.told()


def test_others_on_the_gateway_keep_their_own_policy(machine: Machine) -> None:
    """A route of somebody else's has a policy of its own: Envoy Gateway tells so of ours, and no publication fails."""
    parent = [{"name": machine.namespace}]
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "theirs"}
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": "/theirs"}}]}
    spec = {"parentRefs": parent, "hostnames": ["theirs.test"], "rules": [rule]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec}
    policy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "SecurityPolicy",
        "spec": {"targetRefs": [target], "cors": {"allowOrigins": ["https://app.example"]}},
    }
    metadata = {"name": "theirs", "namespace": machine.namespace}
    machine.kube.apply(route | {"metadata": metadata}, policy | {"metadata": metadata}, manager="somebody")
    assert until(lambda: "Accepted" in machine.conditions("securitypolicies").get("theirs", ()), 60)
    comer = machine.catalog.publication(model="beside", url="http://127.0.0.1:9")
    assert until(lambda: machine.live == 3, LIVE_S), machine.gateway.told()
    machine.catalog.remove(Kind.PUBLICATION, comer)
    machine.kube.kubectl("delete", "httproute/theirs", "securitypolicy/theirs", "-n", machine.namespace)
    assert until(lambda: machine.live == 2, 60)


def test_an_unpublished_model_is_gone(machine: Machine) -> None:
    """Its route leaves the cluster, and Envoy; the others stay."""
    comer = machine.catalog.publication(model="comer", url="http://127.0.0.1:9")
    assert until(lambda: machine.live == 3, LIVE_S), machine.gateway.told()
    machine.catalog.remove(Kind.PUBLICATION, comer)
    assert until(lambda: f"tollkeeper-{comer.uid}" not in machine.conditions("httproutes"), 60)
    assert machine.status("/models/iris", **{"x-api-key": machine.key}) == 200


def test_no_right_was_lacking(machine: Machine) -> None:
    """Runs last: with a gateway that is at work, the publisher asks for nothing that the chart does not grant."""
    assert {act for act in machine.kube.acts(ACCOUNT, machine.namespace) if not act.allowed} == set[Act]()
