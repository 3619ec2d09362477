"""The real Envoy Gateway that reads its resources from a Kubernetes cluster; its Envoy runs on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from envoygateway import EnvoyGateway
from kubeapi import ROOT, Kube

OWN_NAMESPACE = "envoy-gateway-system"
_CERTS = ROOT / "tests/kube/certs.sh"


class ClusterGateway(EnvoyGateway):
    """Follows a cluster. Its certificates are of its own authority, at the place where a pod of it has them."""

    def __init__(self, folder: Path, kube: Kube) -> None:
        super().__init__(folder)
        self._kube = kube
        self._root = folder / "root"
        self._root.mkdir()

    def start(self) -> None:
        """Start it and wait until its Envoy serves what the cluster says; skips at home where that cannot be."""
        self._lay_out()
        tried = subprocess.run([*self._within(), "true"], capture_output=True, text=True, check=False, timeout=60)
        if tried.returncode:
            absent = f"this machine gives no mount namespace: {tried.stderr}"
            pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
        super().start()

    def _within(self) -> list[str | Path]:
        return [_CERTS, self._folder / "config/certs/envoy-gateway", self._root]

    def _command(self, config: Path) -> list[str | Path]:
        return [*self._within(), *super()._command(config)]

    def _environment(self) -> dict[str, str]:
        own = {"KUBECONFIG": str(self._kube.kubeconfig), "ENVOY_GATEWAY_NAMESPACE": OWN_NAMESPACE}
        return super()._environment() | own

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        kubernetes = {"leaderElection": {"disable": True}}
        config["provider"]["custom"]["resource"] = {"type": "Kubernetes", "kubernetes": kubernetes}
        return config


@contextmanager
def cluster_gateway(folder: Path, kube: Kube) -> Iterator[ClusterGateway]:
    """One that is not started yet; ended with all its processes when the body ends."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN_NAMESPACE}})
    made = ClusterGateway(folder, kube)
    try:
        yield made
    finally:
        made.stop()
