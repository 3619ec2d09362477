"""docs/kubernetes.md on a real API server: every command of kubectl that it marks as run is run here, as it stands.

What its reader does over the API between them is done over the API; KServe's word and Envoy Gateway's are patched in.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import requests
from adminprocess import AdminProcess, admin_process
from gatewayjudge import judging
from kubeapi import Kube
from ownvalkey import own_valkey
from upmachine import until

from catalog.keys.secrets import create_secrets

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

PAGE = (Path(__file__).parents[2] / "docs/kubernetes.md").read_text()
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = "# ✔"
PASSWORD = "a good password"
GATEWAYS = "envoy-gateway-system"
SLOW_S = 60


def commands() -> list[str]:
    """The page's marked commands of kubectl, in their order; one with a heredoc is one."""
    found: list[str] = []
    for block in BLOCK.findall(PAGE):
        lines = iter(block.splitlines())
        for line in lines:
            command = line
            if "<<'YAML'" in line:
                command += "".join(f"\n{more}" for more in iter(lambda lines=lines: next(lines), "YAML")) + "\nYAML"
            if MARK in line and line.startswith("kubectl"):
                found.append(command)
    return found


@pytest.fixture
async def guide(
    kube: Kube, valkey_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AdminProcess]:
    """An admin as the chart runs it, in a cluster with the page's namespaces."""
    for name in ("tenant-a", GATEWAYS):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    create_secrets(tmp_path / "secrets.json")
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    secrets = str(tmp_path / "secrets.json")
    options = ("--secrets-file", secrets, "--admin-password", PASSWORD, "--models", "kubernetes")
    publishing = ("--publish-to", "cluster", "--gate-targets", "unix:/run/tollkeeper/gate.sock")
    async with judging(kube.kubeconfig, GATEWAYS):
        with (
            own_valkey(valkey_binary) as valkey,
            admin_process("--redis-url", valkey.url, *options, *publishing) as admin,
        ):
            yield admin
    kube.kubectl("delete", "namespace", "tenant-a", "--wait=false")  # the other is shared


def shell(kube: Kube, command: str) -> str:
    """Run a command as its reader does; what it said."""
    environment = {**os.environ, "PATH": f"{kube.programs}:{os.environ['PATH']}", "KUBECONFIG": str(kube.kubeconfig)}
    run = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


async def test_the_pages_commands(kube: Kube, guide: AdminProcess) -> None:
    """From the label on a namespace to the routes of what is published in it."""
    await asyncio.to_thread(read_along, kube, guide.url)


def read_along(kube: Kube, url: str) -> None:
    """Do what the page says."""
    told = iter(commands())
    said: dict[str, str] = {}
    for command in told:
        said[command] = shell(kube, command)
        if "kubectl apply" in command:
            break
    ready = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "address": {"url": "http://my-model.tenant-a.svc.cluster.local"},
    }
    kube.patch_status("inferenceservices.serving.kserve.io", "my-model", "tenant-a", ready)
    publish(kube, url)
    said |= {command: shell(kube, command) for command in told}

    def output(part: str) -> str:
        (one,) = [text for command, text in said.items() if part in command]
        return one

    assert output("jsonpath='{.status.conditions") == "True"
    assert "my-model" in output("get inferenceservices -n tenant-a")
    assert "published-model-my-model" in output("grep published-model")
    assert "tollkeeper-" in output("get httproute -n")
    guides = shell(kube, "kubectl get httproute,aigatewayroute -n envoy-gateway-system")
    assert "httproute.gateway.networking.k8s.io/tollkeeper-" in guides
    assert "tollkeeper" in output("get backendtrafficpolicy")


def publish(kube: Kube, url: str) -> None:
    """Publish my-model when it is ready, and wait until the cluster has what that makes."""
    login = {"username": "admin", "password": PASSWORD}
    token = requests.post(f"{url}/api/admin/login", json=login, timeout=30).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    body = {"config": {"tenantId": "tenant-a", "rateLimiting": {"requestsPerMinute": 3}}}

    def is_published() -> bool:
        answer = requests.post(f"{url}/api/models/my-model/publish", json=body, headers=headers, timeout=30)
        return answer.status_code == 201

    assert until(is_published, SLOW_S)
    assert until(lambda: "published-model-my-model" in kube.kubectl("get", "configmap", "-n", "tenant-a"), SLOW_S)
    assert until(lambda: bool(kube.listed("httproutes", GATEWAYS)), SLOW_S)
