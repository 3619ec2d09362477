"""A release's processes on this machine: started with what its pods say, they find and understand each other.

What a kubelet does besides (users, mounts, probes, restarts) is not seen here, and no Envoy is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from gatebench import Asker, question, status, wait_until
from gatewayjudge import Judge, client_of
from helmchart import ROOT
from helmrelease import Release, released
from kubeapi import Json, Kube
from podprocess import Pod, started
from valkeys import free_port

from extauth.edge import CHECK_PATH
from protos.external_auth_pb2 import CheckResponse
from runtime.lifecycle import running

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

ADMIN = "management-service"
LISTENING = re.compile(r"listening: (\S+?)\"")
PUBLISHED = {"config": {"tenantId": "tenant-a", "rateLimiting": {"requestsPerMinute": 2}}}


@dataclass
class Machine:
    """Where a release's processes run; all that differs from its pods stands in ``elsewhere``."""

    release: Release
    folder: Path
    running: ExitStack
    elsewhere: dict[str, str] = field(
        default_factory=lambda: {f"0.0.0.0:{port}": "127.0.0.1:0" for port in (8085, 9090, 9092)}
    )

    def start_valkey(self, binary: str) -> None:
        """The trial Valkey, on a port of this machine."""
        spec = self.release.template_of("statefulset", "tollkeeper-valkey")["spec"]
        pod = self._pod("valkey", {**spec, "volumes": [*spec["volumes"], {"name": "data"}]}, self.release.namespace)
        (container,) = spec["containers"]
        port = free_port()
        command = [binary, *pod.arguments(container), "--port", str(port), "--bind", "127.0.0.1"]
        self.running.enter_context(started(command, os.environ, self.folder / "valkey.log", "Ready to accept"))
        self.elsewhere[f"tollkeeper-valkey.{self.release.namespace}.svc.cluster.local:6379"] = f"127.0.0.1:{port}"

    def start_gate(self) -> Asker:
        """The gate beside a proxy."""
        proxy = self.release.kube.get("envoyproxy", self.release.name, self.release.gateways)
        envoy = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
        (container,) = envoy["initContainers"]
        pod = self._pod("proxy", envoy["pod"], self.release.gateways)
        self._start(pod, container, {})
        asker = Asker(f"unix:{pod.folder}/tollkeeper-gate/gate-0.sock")
        self.running.callback(asker.close)
        return asker

    def start_gate_of_its_own(self) -> str:
        """The gate in a pod of its own; where it listens."""
        spec = self.release.template_of("deployment", "tollkeeper-gate")["spec"]
        (container,) = spec["containers"]
        address = f"127.0.0.1:{free_port()}"
        self.elsewhere["0.0.0.0:9001"] = address
        self._start(self._pod("gate", spec, self.release.namespace), container, {})
        return address

    def start_admin(self) -> str:
        """The admin, as its own service account; where it listens."""
        spec = self.release.template_of("deployment", ADMIN)["spec"]
        (container,) = spec["containers"]
        account = self.release.kube.account(spec["serviceAccountName"], self.release.namespace)
        pod = self._pod("admin", spec, self.release.namespace)
        log = self._start(
            pod, container, {"KUBECONFIG": str(account)}, "--probe-allow=127.0.0.0/8", "--user-calls-per-minute=1000000"
        )
        found = LISTENING.search(log)
        assert found, log
        return f"http://{found[1]}"

    def _start(self, pod: Pod, container: Json, more: dict[str, str], *options: str) -> str:
        command = [sys.executable, "-P", "-m", "tollkeeper", *pod.arguments(container), *options]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **pod.environment(container), **more}
        log = self.folder / f"{container['name']}.log"
        return self.running.enter_context(started(command, environment, log, "listening: "))

    def _pod(self, name: str, spec: Json, namespace: str) -> Pod:
        return Pod(self.release.kube, namespace, spec, self.folder / name, self.elsewhere)


@pytest.fixture
def release(kube: Kube, namespace: str) -> Iterator[Release]:
    """Installed without any value of its own."""
    with released(kube, namespace) as made:
        made.install()
        yield made


@pytest.fixture
def machine(release: Release) -> Iterator[Machine]:
    """With a folder whose name is short, for the sake of sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tk-pod-"))
    with ExitStack() as running:
        yield Machine(release, folder, running)
    shutil.rmtree(folder)


@pytest.fixture
def model() -> Iterator[str]:
    """A KServe v1 server that has every model, ready."""

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"name": self.path.rpartition("/")[2], "ready": True}).encode())

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, name="model", daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_a_release_serves_as_its_pods_are_told(machine: Machine, model: str, valkey_binary: str) -> None:
    """From the password in the Secret to a call that is limited: store, users, secrets, rights, options fit together.

    The admin does all of it with the rights that the chart gives it: none is refused to it.
    """
    release = machine.release
    machine.start_valkey(valkey_binary)
    gate, api = machine.start_gate(), machine.start_admin()
    key = _publish(api, _password(release), model)
    async with (
        client_of(release.kube.kubeconfig) as accepting,
        running(Judge(accepting, release.gateways, release.name).run(), name="judge"),
    ):
        await asyncio.to_thread(wait_until, lambda: bool(_rules(release)), 90)
    asked = [status(gate.ask(_call(release, key))) for _ in range(4)]
    decided = [one for one in asked if one != 503]  # a busy machine's store may answer a first call too late
    assert decided[:3] == [200, 200, 429]
    assert len(decided) >= 3
    policies = [one["spec"] for one in release.kube.listed("securitypolicies", release.gateways)]
    assert [one["targetRefs"][0]["name"] for one in policies if "targetRefs" in one] == [release.name]
    assert [one["extAuth"]["failOpen"] for one in policies] == [False, False]
    assert [act for act in release.kube.acts(ADMIN, release.namespace) if not act.allowed] == []


def test_a_gate_of_its_own_knows_the_proxies_by_the_made_certificates(machine: Machine, valkey_binary: str) -> None:
    """It answers who shows the client's certificate, under the name that the publisher is told, and nobody else."""
    release = machine.release
    release.install("--set", "gate.mode=deployment,gate.drainSeconds=0")
    machine.start_valkey(valkey_binary)
    address = machine.start_gate_of_its_own()
    made = release.secrets()[release.gateways, "tollkeeper-gate-client"]
    authority = release.kube.get("configmap", "tollkeeper-gate-ca", release.gateways)["data"]["ca.crt"].encode()
    key, certificate = (base64.b64decode(made[name]) for name in ("tls.key", "tls.crt"))
    (name,) = (word.partition("=")[2] for word in release.args() if word.startswith("--gate-tls-name="))
    assert _asked_over_tls(address, name, grpc.ssl_channel_credentials(authority, key, certificate)) == 404
    with pytest.raises(grpc.RpcError):
        _asked_over_tls(address, name, grpc.ssl_channel_credentials(authority))
    with pytest.raises(grpc.RpcError):
        _asked_over_tls(address, "another.name", grpc.ssl_channel_credentials(authority, key, certificate))


def _asked_over_tls(address: str, name: str, credentials: grpc.ChannelCredentials) -> int:
    """The status of an answer to a call about nothing."""
    options = [("grpc.ssl_target_name_override", name)]
    with grpc.secure_channel(address, credentials, options) as channel:
        check = channel.unary_unary(CHECK_PATH)
        return status(CheckResponse.FromString(check(question().SerializeToString(), timeout=20)))


def _password(release: Release) -> str:
    jsonpath = ("-o", "go-template={{.data.password | base64decode}}")
    return release.kube.kubectl("get", "secret", f"{ADMIN}-password", "-n", release.namespace, *jsonpath)


def _publish(api: str, password: str, model: str) -> str:
    """As the guide does; the key."""
    session = requests.Session()

    def post(path: str, body: Json) -> Json:
        answer = session.post(f"{api}/api{path}", json=body, timeout=30)
        assert answer.ok, answer.text
        found: Json = answer.json()
        return found

    login = post("/admin/login", {"username": "admin", "password": password})
    session.headers["authorization"] = f"Bearer {login['token']}"
    post("/tenants", {"tenantId": "tenant-a"})
    post("/models", {"name": "iris", "tenantId": "tenant-a", "url": model})
    return str(post("/models/iris/publish", PUBLISHED)["apiKey"])


def _rules(release: Release) -> list[tuple[str, str]]:
    """Route and name of each rule that leads to a server; those that take no call stand there from the start on."""
    routes = release.kube.listed("httproutes", release.gateways)
    rules = [(route["metadata"]["name"], rule) for route in routes for rule in route["spec"]["rules"]]
    return [(route, rule["name"]) for route, rule in rules if rule.get("backendRefs")]


def _call(release: Release, key: str) -> Any:
    """A call as Envoy Gateway's Envoy tells of it."""
    route, rule = _rules(release)[0]
    asked = question(key=key)
    told = {"kind": "HTTPRoute", "namespace": release.gateways, "name": route, "sectionName": rule}
    metadata = asked.attributes.route_metadata_context.filter_metadata
    metadata["envoy-gateway"].update({"resources": [told]})
    return asked
