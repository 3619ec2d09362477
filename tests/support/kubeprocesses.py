"""etcd, kube-apiserver and its controllers as processes of this machine: free loopback ports, ended by their pids."""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from authority import Authority
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from upmachine import until

START_S = 120
STOP_S = 30

_BELOW_EPHEMERAL = range(20_000, 32_000)
_CONTROLLERS = (
    "namespace-controller",  # without these a deleted namespace stays, owned objects are not collected,
    "garbage-collector-controller",  # and a new namespace has no default service account
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
)
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],  # a watch is told of when it begins
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


def quiet_port() -> int:
    """A loopback port that nobody has, and that no outgoing connection is given before it is used."""
    for port in random.sample(_BELOW_EPHEMERAL, 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port between 20000 and 32000")


class Process:
    """A program that is started, stopped and started again with the same arguments."""

    def __init__(self, command: list[str], log: Path, is_ready: Callable[[], bool]) -> None:
        self._command = command
        self._log = log
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": str(self._log.parent)},
            )
        ready = until(lambda: not self.runs or self._is_ready(), START_S)
        if not (ready and self.runs):
            self.kill()
            pytest.fail(f"not ready within {START_S} s: {self._command[0]}\n{self._log.read_text()[-4000:]}")

    @property
    def runs(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it as its operator would."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """Let it hang: it keeps its connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a machine that loses power would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)


class ControlPlane:
    """The three of them. ``folder`` has their data, keys and logs; ``kubeconfig`` is the admin's."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._etcd_port, self._peer_port, self._port = quiet_port(), quiet_port(), quiet_port()
        self._token = secrets.token_hex(24)
        self._make_keys()
        self.audit = folder / "audit.log"
        self.kubeconfig = self.kubeconfig_of("admin", self._token)
        self._context = ssl.create_default_context(cafile=self._authority.ca)
        self.etcd = self._process("etcd", self._etcd_options(), self._etcd_answers)
        self.api_server = self._process("kube-apiserver", self._api_options(), self._api_answers)
        self.controllers = self._process("kube-controller-manager", self._controller_options(), lambda: True)

    def start(self) -> None:
        """Start them in their order."""
        for process in (self.etcd, self.api_server, self.controllers):
            process.start()

    def stop(self) -> None:
        """Stop them the other way round."""
        for process in (self.controllers, self.api_server, self.etcd):
            process.stop()

    def kubeconfig_of(self, user: str, token: str, namespace: str = "default") -> Path:
        """Write the file with which a client is this user."""
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority-data": base64.b64encode(self._authority.ca.read_bytes()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kube", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": user, "context": {"cluster": "kube", "user": user, "namespace": namespace}}],
            "current-context": user,
        }
        path = self._folder / f"{user}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def _make_keys(self) -> None:
        self._authority = Authority(self._folder, "kube-ca")
        self._certificate, self._key = self._authority.give("kubernetes.default.svc")
        signing = load_pem_private_key(self._key.read_bytes(), password=None)
        self._public = self._folder / "accounts.pub"
        self._public.write_bytes(signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (self._folder / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        (self._folder / "audit.json").write_text(json.dumps(_AUDIT))

    def _process(self, name: str, options: dict[str, Any], is_ready: Callable[[], bool]) -> Process:
        command = [str(self._programs / name), *(f"--{option}={value}" for option, value in options.items())]
        return Process(command, self._folder / f"{name}.log", is_ready)

    def _etcd_options(self) -> dict[str, Any]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return {
            "name": "kube",
            "data-dir": self._folder / "etcd",
            "log-level": "warn",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"kube={peer}",
            "unsafe-no-fsync": "true",
        }

    def _api_options(self) -> dict[str, Any]:
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self._port,
            "tls-cert-file": self._certificate,
            "tls-private-key-file": self._key,
            "cert-dir": self._folder,
            "token-auth-file": self._folder / "tokens.csv",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._public,
            "service-account-signing-key-file": self._key,
            "service-cluster-ip-range": "10.96.0.0/16",
            "authorization-mode": "RBAC",
            "anonymous-auth": "false",
            "endpoint-reconciler-type": "none",
            "profiling": "false",
            "audit-policy-file": self._folder / "audit.json",
            "audit-log-path": self._folder / "audit.log",
            "audit-log-mode": "blocking",
        }

    def _controller_options(self) -> dict[str, Any]:
        return {
            "kubeconfig": self.kubeconfig,
            "controllers": ",".join(_CONTROLLERS),
            "leader-elect": "false",
            "secure-port": 0,
            "cert-dir": self._folder,
            "root-ca-file": self._authority.ca,
            "service-account-private-key-file": self._key,
        }

    def _etcd_answers(self) -> bool:
        return _is_ok(f"http://127.0.0.1:{self._etcd_port}/health")

    def _api_answers(self) -> bool:
        """Ready, and with its first namespaces made."""
        return all(self._asked(path) for path in ("/readyz", "/api/v1/namespaces/default"))

    def _asked(self, path: str) -> bool:
        request = urllib.request.Request(f"https://127.0.0.1:{self._port}{path}")
        request.add_header("Authorization", f"Bearer {self._token}")
        return _is_ok(request, self._context)


def _is_ok(request: urllib.request.Request | str, context: ssl.SSLContext | None = None) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        answer: IO[bytes]
        with direct.open(request, timeout=5) as answer:
            return answer.status == HTTPStatus.OK  # type: ignore[attr-defined]
    except OSError:
        return False
