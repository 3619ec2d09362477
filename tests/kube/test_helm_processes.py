"""A release's processes on this machine: started with what its pods say, they find and understand each other.

What a kubelet does besides (users, mounts, probes, restarts) is not seen here, and no Envoy is.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from gatebench import question, status
from helmchart import ROOT
from helmrelease import Release, released
from kubeapi import Json, Kube
from podprocess import Pod, started
from valkeys import free_port

from extauth.edge import CHECK_PATH
from protos.external_auth_pb2 import CheckResponse

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]


@dataclass
class Machine:
    """Where a release's processes run; all that differs from its pods stands in ``elsewhere``."""

    release: Release
    folder: Path
    running: ExitStack
    elsewhere: dict[str, str] = field(
        default_factory=lambda: {"0.0.0.0:9090": "127.0.0.1:0", "0.0.0.0:8085": "127.0.0.1:0"}
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

    def start_gate_of_its_own(self) -> str:
        """The gate in a pod of its own; where it listens."""
        spec = self.release.template_of("deployment", "tollkeeper-gate")["spec"]
        (container,) = spec["containers"]
        address = f"127.0.0.1:{free_port()}"
        self.elsewhere["0.0.0.0:9001"] = address
        self._start(self._pod("gate", spec, self.release.namespace), container, {})
        return address

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
