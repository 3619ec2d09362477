"""The real Envoy Gateway as a controller of the API server of the tests; the proxies that it asks for never run.

It reads its certificates from /certs, which nobody can choose: so it runs in a root folder of its own, for which one
has to be root. Its ports (8081, 18000-18002, 19001) are fixed too: one at a time.
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
from gatebench import wait_until
from kubeapi import Kube

BINARY = "tollkeeper/envoy-gateway-1.9.1/envoy-gateway"
START_S = 90
ALONE = """set -euo pipefail
folder=$1
mount -t tmpfs tmpfs "$folder/root"
for place in /*; do
    if [[ -L $place ]]; then cp -P "$place" "$folder/root/"
    elif [[ -d $place ]]; then mkdir "$folder/root$place"; mount --rbind "$place" "$folder/root$place"; fi
done
cp -r "$folder/certs" "$folder/root/certs"
shift
exec chroot "$folder/root" "$@"
"""


def binary() -> Path:
    """What ``make e2e-gateway`` has built; skips at home and fails in CI where it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not (cache / BINARY).exists():
        absent = f"{cache / BINARY} is not there: make e2e-gateway builds it, with Go"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return cache / BINARY


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
    command = ["unshare", "--mount", "bash", "-c", ALONE, "alone", str(folder)]
    command += [program, "server", "-c", str(folder / "config.yaml")]
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
