"""A real Kubernetes API server for the whole session, with the custom resources of the gateway and of the models.

Nothing runs pods, and no controller but Kubernetes' own few writes a status: a test that needs one patches it. Tests
share the server; each works in namespaces of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubeprocesses import ControlPlane
from upmachine import until

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "tests/kube/build.sh"
OWN_CRDS = ROOT / "tests/kube/crds"
LONGEST_S = 120
_CRD = "customresourcedefinition.apiextensions.k8s.io"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Act:
    """What a client asked of the API server, in the words of RBAC."""

    verb: str
    group: str  # "" of the core
    resource: str  # plural, and with "/status" where it is a subresource
    allowed: bool = True


class Kube:
    """The server, its programs and its users."""

    def __init__(self, programs: Path, plane: ControlPlane) -> None:
        self.programs = programs
        self.plane = plane
        self.kubeconfig = plane.kubeconfig
        self._numbers = itertools.count(1)

    @property
    def kubectl_path(self) -> Path:
        """The program ``kubectl``."""
        return self.programs / "kubectl"

    @property
    def helm_path(self) -> Path:
        """The program ``helm``."""
        return self.programs / "helm"

    def run(
        self, program: str, *arguments: str, given: str = "", kubeconfig: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``kubectl`` or ``helm`` as the admin, or as whoever the file is of."""
        done = subprocess.run(
            [self.programs / program, *arguments],
            input=given,
            env={**os.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig), "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
        assert not check or done.returncode == 0, f"{program} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done

    def kubectl(self, *arguments: str, given: str = "", kubeconfig: Path | None = None) -> str:
        """Run ``kubectl``; what it said. One that fails fails the test."""
        return self.run("kubectl", *arguments, given=given, kubeconfig=kubeconfig).stdout

    def helm(self, *arguments: str, kubeconfig: Path | None = None) -> str:
        """Run ``helm``; what it said. One that fails fails the test."""
        return self.run("helm", *arguments, kubeconfig=kubeconfig).stdout

    def apply(self, *objects: Json, manager: str = "a-test") -> None:
        """Write objects as somebody else: server-side, with this field manager."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", given=text)

    def get(self, resource: str, name: str, namespace: str) -> Json:
        """Read an object."""
        found: Json = json.loads(self.kubectl("get", resource, name, "-n", namespace, "-o", "json"))
        return found

    def listed(self, resource: str, namespace: str, *options: str) -> list[Json]:
        """Read all objects of a kind in a namespace."""
        found: Json = json.loads(self.kubectl("get", resource, "-n", namespace, "-o", "json", *options))
        items: list[Json] = found["items"]
        return items

    def patch_status(self, resource: str, name: str, namespace: str, status: Json) -> None:
        """Say of an object what its controller would."""
        patch = json.dumps({"status": status})
        options = ("--subresource=status", "--type=merge", "-p", patch)
        self.kubectl("patch", resource, name, "-n", namespace, *options)

    def new_namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace of a name that no other has."""
        name = f"test-{next(self._numbers)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
        return name

    def account(self, name: str, namespace: str) -> Path:
        """Make a service account that may do nothing yet; the kubeconfig with which one is it."""
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration=8h").strip()
        return self.plane.kubeconfig_of(f"{namespace}.{name}", token, namespace)

    def allow(self, name: str, namespace: str, rules: Sequence[Json], *, within: str | None = None) -> None:
        """Give a service account rights: in one namespace, or without ``within`` everywhere."""
        kind = "Role" if within else "ClusterRole"
        metadata: Json = {"name": f"{namespace}-{name}"} | ({"namespace": within} if within else {})
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": list(rules)}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        self.apply(role, binding)
        last = rules[-1]
        assert until(lambda: self.may(name, namespace, last["verbs"][-1], _resource(last), within), LONGEST_S)

    def may(self, name: str, namespace: str, verb: str, resource: str, within: str | None = None) -> bool:
        """Ask the server, which hears of new rules a moment after they are written, whether an account may do this."""
        user = f"--as=system:serviceaccount:{namespace}:{name}"
        asked = self.run("kubectl", "auth", "can-i", verb, resource, "-n", within or namespace, user, check=False)
        return asked.stdout.strip() == "yes"

    def acts(self, name: str, namespace: str) -> set[Act]:
        """All that a service account has asked of the server until now, and whether it was allowed to."""
        user = f"system:serviceaccount:{namespace}:{name}"
        lines = self.plane.audit.read_text().splitlines() if self.plane.audit.exists() else []
        entries = (json.loads(line) for line in lines)
        return {_act(entry) for entry in entries if entry["user"]["username"] == user and "objectRef" in entry}

    @contextmanager
    def away(self) -> Iterator[None]:
        """Without an API server while the body runs; afterwards it is back, with all it knew."""
        self.plane.api_server.kill()
        try:
            yield
        finally:
            self.plane.api_server.start()
            self.await_resources()

    def install(self, *folders: Path) -> None:
        """Make custom resources known, and wait until they are served."""
        for folder in folders:
            self.kubectl("apply", "--server-side", "-f", str(folder))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", f"--timeout={LONGEST_S}s")
        self.await_resources()

    def await_resources(self) -> None:
        """Wait until custom resources can be listed: a server that has just begun refuses them for a moment."""
        names = ",".join(self.kubectl("get", "crd", "-o", "name").replace(f"{_CRD}/", "").split())
        served = until(lambda: self.run("kubectl", "get", names, "-A", check=False).returncode == 0, LONGEST_S)
        assert served, self.run("kubectl", "get", names, "-A", check=False).stderr


def _resource(rule: Json) -> str:
    return ".".join(filter(None, (rule["resources"][-1], rule["apiGroups"][-1])))


def _act(entry: Json) -> Act:
    of = entry["objectRef"]
    resource = of["resource"] + (f"/{of['subresource']}" if "subresource" in of else "")
    allowed = entry["annotations"].get("authorization.k8s.io/decision") == "allow"
    return Act(entry["verb"], of.get("apiGroup", ""), resource, allowed)


def programs() -> Path:
    """What ``tests/kube/build.sh`` has built; skips at home and fails in CI where it is not there."""
    found = subprocess.run([BUILD, "--cached"], capture_output=True, text=True, check=False, timeout=LONGEST_S)
    if found.returncode:
        absent = f"Kubernetes is not built: make e2e-kube does it, with Go {found.stderr}"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return Path(found.stdout.strip())


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The session's API server, with all custom resources established."""
    built = programs()
    with tempfile.TemporaryDirectory(prefix="tk-kube-") as folder:
        plane = ControlPlane(built, Path(folder))
        try:
            plane.start()
            made = Kube(built, plane)
            made.install(built / "crds", OWN_CRDS)
            yield made
        finally:
            plane.stop()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of this test alone."""
    name = kube.new_namespace()
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")
