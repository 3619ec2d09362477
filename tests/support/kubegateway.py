"""The real Envoy Gateway as a controller of the API server of the tests; the proxies that it asks for never run.

It reads its certificates from /certs, which nobody can choose, so it runs in a root folder of its own. Its ports (8081,
18000-18002, 19001) are fixed too: one at a time.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from envoygateway import binary
from gatebench import wait_until
from kubeapi import ROOT, Kube

START_S = 90
_CERTS = ROOT / "tests/kube/certs.sh"


@contextmanager
def kube_gateway(kube: Kube, namespace: str, folder: Path) -> Iterator[Path]:
    """Run it for a namespace until the body ends; gives its log."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "KUBECONFIG": str(kube.kubeconfig),
        "ENVOY_GATEWAY_NAMESPACE": namespace,
    }
    program = str(binary())
    making = [program, "certgen", "--disable-topology-injector"]
    subprocess.run(making, env=environment, check=True, capture_output=True, timeout=START_S)
    _lay_out(kube, namespace, folder)
    within = [str(_CERTS), str(folder / "certs"), str(folder / "root")]
    _try(within)
    command = [*within, program, "server", "-c", str(folder / "config.yaml")]
    log = folder / "log"
    with (
        log.open("wb") as written,
        subprocess.Popen(command, env=environment, stdout=written, stderr=written) as process,
    ):
        try:
            wait_until(lambda: "Starting EventSource" in log.read_text() or process.poll() is not None, START_S)
            assert process.poll() is None, log.read_text()[-4_000:]
            yield log
        finally:
            process.terminate()
            process.wait(30)


def _try(within: list[str]) -> None:
    """Skip at home and fail in CI where there can be no root folder of its own."""
    tried = subprocess.run([*within, "true"], capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode:
        absent = f"this machine gives no mount namespace: {tried.stderr}"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)


def _lay_out(kube: Kube, namespace: str, folder: Path) -> None:
    """Its certificates, its root folder, its configuration."""
    for name in ("certs", "root"):
        (folder / name).mkdir()
    for key, value in kube.get("secret", "envoy-gateway", namespace)["data"].items():
        (folder / "certs" / key).write_bytes(base64.b64decode(value))
    config = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
        "provider": {"type": "Kubernetes", "kubernetes": {"leaderElection": {"disable": True}}},
        "extensionApis": {"enableBackend": True, "enableEnvoyPatchPolicy": True},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
