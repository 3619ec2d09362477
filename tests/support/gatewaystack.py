"""A whole machine on the real Envoy Gateway: Valkey, a gate, an admin that publishes into its folder, model servers."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
import yaml
from authority import Authority
from envoygateway import ENVOY_VERSION, EnvoyGateway, envoy_gateway
from gatebench import Catalog
from ownvalkey import OwnValkey, own_valkey
from upclient import Operator
from upmachine import until
from valkeys import free_port

from catalog.keys.secrets import Secrets, create_secrets
from tests.e2e.proxy import HOST, Caller, short_folder

ROOT = Path(__file__).parents[2]
START_S = 90
STOP_S = 30
LIVE_S = 60
"""Longest wait until what was published is live: a reload is seconds on a busy machine."""
NAMESPACE = "envoy-gateway-system"
WEB, OTHER_WEB, GATE_CA, GATE_CLIENT = "web-certificate", "other-certificate", "gate-authority", "gate-client"
"""Objects of the operator's."""
OTHER_HOST = "other.example.test"
"""The name in the second certificate of https."""
PAGE = "https://app.example"
"""The origin whose pages may call."""
GATE = "gate"  # the name in the gate's certificate
LOGIN = {"username": "admin", "password": "password"}
MANY = tuple(f"m{number:02}" for number in range(50))
"""Names of the traditional sample server, for tests that need many models."""
SAMPLES = {"kserve": ("iris", "wine", *MANY), "openai": ("chat", "code", "shared", "hidden")}
UNLIMITED = {"requestsPerMinute": None, "requestsPerHour": None, "burstLimit": None}


class Program:
    """A process of ours that may be killed and started again, with the same options."""

    def __init__(self, log: Path, module: str, *words: str) -> None:
        self._log = log
        self._command = [sys.executable, "-m", module, *words]
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start it."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log)

    def await_ready(self) -> None:
        """Wait until it listens."""
        process = self._process
        assert process is not None
        assert until(lambda: "listening" in self.told or process.poll() is not None, START_S), self.told
        assert process.poll() is None, self.told

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.launch()
        self.await_ready()

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def told(self) -> str:
        """What it said since it was started."""
        return self._log.read_text()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    def stop(self) -> None:
        """End it as its supervisor would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_S)


@dataclass(frozen=True)
class Wiring:
    """What differs from one machine to another."""

    mutual_tls: bool = False  # whether the gate is asked over TCP with certificates on both sides, or by a Unix socket
    patches: bool = True  # whether Envoy Gateway allows EnvoyPatchPolicy, and the admin counts on it
    meter: str = "patch"  # how the admin has answers metered: policy, patch or none
    lua: bool = True  # whether Envoy Gateway allows a policy's script, where there is one
    gates: int = 1  # at addresses of their own
    drain_s: float = 0  # how long each goes on when it is told to stop


METERED = Wiring()
"""With all that Envoy Gateway can be allowed to do for us."""
BARE = Wiring(patches=False, meter="none", lua=False)
"""With nothing but Backends: as Envoy Gateway is by default."""
both_modes = pytest.mark.parametrize("gateway", [METERED, BARE], indirect=True, ids=["metered", "bare"])


def wired(wiring: Wiring, name: str) -> pytest.MarkDecorator:
    """Run a test on a machine of this wiring."""
    return pytest.mark.parametrize("gateway", [wiring], indirect=True, ids=[name])


@dataclass
class Machine(Caller):
    """All parts, ready; ``up`` tells how they are reached, as ``up.json`` does of ``tollkeeper up``."""

    folder: Path
    parts: Parts
    gateway: EnvoyGateway
    valkey: OwnValkey
    secrets: Secrets
    gates: list[Program]
    admin: Program

    def __post_init__(self) -> None:
        self.ports = self.parts.listeners
        self.authority = self.parts.authority
        self.servers = {name: f"http://{address}" for name, address in self.parts.servers.items()}
        self.up: dict[str, Any] = {
            "gateway_url": f"http://127.0.0.1:{self.ports['http']}",
            "admin_url": f"http://{self.parts.api}",
            **{f"admin_{name}": value for name, value in LOGIN.items()},
        }
        self.catalog = Catalog(self.valkey.url, self.secrets)
        self.operator = Operator(self)
        self.store = redis.Redis.from_url(self.valkey.url)

    @property
    def gate(self) -> Program:
        """The gate, where there is one; the one whose metrics are read."""
        return self.gates[0]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the gate's samples of this name that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = requests.get(f"http://{self.parts.face}/metrics", timeout=20).text.splitlines()
        fit = [
            line for line in lines if line.startswith((f"{name} ", f"{name}{{")) and all(one in line for one in wanted)
        ]
        return sum(float(line.rpartition(" ")[2]) for line in fit)

    def publish(self, tenant: str, model: str, url: str, *, live: bool = True, **config: Any) -> dict[str, Any]:
        """Register a model where it is not, publish it, and wait until it is live; the answer, with its key."""
        self.operator.ask("POST", "/api/tenants", {"tenantId": tenant})
        self.operator.ask("POST", "/api/models", {"name": model, "tenantId": tenant, "url": url})
        asked = {"config": {"tenantId": tenant, "rateLimiting": UNLIMITED} | config}
        made: dict[str, Any] = self.operator.must("POST", f"/api/models/{model}/publish", asked)
        if live:
            self.await_live(tenant, model)
        return made

    def place(self, tenant: str, model: str) -> str:
        """The path of a publication in the admin API."""
        return f"/api/models/{model}/publish?tenantId={tenant}"

    def shown(self, tenant: str, model: str) -> dict[str, Any]:
        """What the API shows of a publication."""
        found: dict[str, Any] = self.operator.must("GET", self.place(tenant, model))
        return found

    def await_live(self, tenant: str, model: str) -> None:
        """Wait until a publication is live."""
        live = until(lambda: self.shown(tenant, model)["status"] == "live", LIVE_S, every_s=0.2)
        assert live, (self.shown(tenant, model), self.admin.told[-3_000:], self.gateway.told())

    def await_all_live(self) -> None:
        """Wait until all is live that the catalog has, whoever wrote it there."""
        live = until(lambda: self._states() == {"live"}, LIVE_S, every_s=0.2)
        assert live, (self._states(), self.admin.told[-3_000:], self.gateway.told())

    def _states(self) -> set[str]:
        listed = self.operator.must("GET", "/api/published-models?limit=500")["items"]
        return {one["status"] for one in listed}

    def unpublish(self, tenant: str, model: str) -> None:
        """Take a publication back."""
        self.operator.must("DELETE", self.place(tenant, model))


@contextmanager
def machine(valkey_binary: str, wiring: Wiring) -> Iterator[Machine]:
    """Put the parts together and start them; all are stopped at the end."""
    with short_folder() as folder, ExitStack() as stack:
        valkey = stack.enter_context(own_valkey(valkey_binary))
        gateway = stack.enter_context(envoy_gateway(folder, patches=wiring.patches, lua=wiring.lua))
        parts = Parts(folder, wiring, valkey.url, Authority(folder, "test"))
        secrets = create_secrets(folder / "secrets.json")
        parts.write_operators_file(gateway.manifests / "operators.yaml")
        gates, admin = parts.gates(), parts.admin(gateway.manifests)
        samples = parts.samples()
        for program in (*gates, admin, *samples.values()):
            program.launch()
            stack.callback(program.stop)
        for program in (*gates, admin, *samples.values()):
            program.await_ready()
        gateway.start()
        yield Machine(folder, parts, gateway, valkey, secrets, gates, admin)


class Parts:
    """The options of each part, and the ports at which they find each other."""

    def __init__(self, folder: Path, wiring: Wiring, store_url: str, authority: Authority) -> None:
        self._folder = folder
        self.wiring = wiring
        self._stores = ["--redis-url", store_url, "--secrets-file", str(folder / "secrets.json")]
        self.authority = authority
        self.listeners = {"http": free_port(), "https": free_port()}
        self.servers = {name: f"127.0.0.1:{free_port()}" for name in SAMPLES}
        self.face, self.api = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.targets = [self._target(f"gate-{number}") for number in range(wiring.gates)]
        self.endings = [self._target(f"endings-{number}") for number in range(wiring.gates)]

    def _target(self, name: str) -> str:
        return f"127.0.0.1:{free_port()}" if self.wiring.mutual_tls else f"unix:{self._folder}/{name}.sock"

    def gates(self) -> list[Program]:
        """As the product's, but patient with a store on a busy machine."""
        options = [*self._stores, "--gateway-namespace", NAMESPACE, "--store-wait-ms", "190"]
        options += ["--drain-s", str(self.wiring.drain_s)]
        if self.wiring.mutual_tls:
            certificate, key = self.authority.give(GATE)
            options += ["--transport", "grpcio", "--tls-certificate", str(certificate), "--tls-key", str(key)]
            options += ["--tls-client-ca", str(self.authority.ca)]
        faces = [self.face, *["127.0.0.1:0"] * (self.wiring.gates - 1)]
        return [
            Program(
                self._folder / f"gate-{number}.log",
                *("tollkeeper", "gate", *options, "--listen", target, "--endings-listen", heard, "--http-listen", face),
            )
            for number, (target, heard, face) in enumerate(zip(self.targets, self.endings, faces, strict=True))
        ]

    def admin(self, manifests: Path) -> Program:
        """Publishes to the folder; the gate may take its time on a busy machine."""
        http, https = (str(port) for port in self.listeners.values())
        options = ["--listen", self.api, "--http-listen", "127.0.0.1:0", "--user-calls-per-minute", "1000000"]
        options += ["--admin-password", LOGIN["password"], "--probe-allow", "127.0.0.0/8"]
        options += ["--publish-to", f"folder:{manifests}", "--probe-url", f"http://127.0.0.1:{http}"]
        options += ["--envoy-version", ENVOY_VERSION, "--gateway-http-port", http, "--gateway-https-port", https]
        options += ["--gateway-listeners", "http,https", "--gateway-certificate", f"{WEB},{OTHER_WEB}"]
        options += ["--gate-targets", ",".join(self.targets), "--endings-targets", ",".join(self.endings)]
        options += ["--cors-origins", PAGE, "--check-timeout-ms", "10000", "--gateway-meter", self.wiring.meter]
        if self.wiring.mutual_tls:
            options += ["--gate-tls-name", GATE, "--gate-tls-ca", GATE_CA, "--gate-tls-client", GATE_CLIENT]
        if not self.wiring.patches:
            options += ["--no-patches"]
        return Program(self._folder / "admin.log", "tollkeeper", "admin", *self._stores, *options)

    def samples(self) -> dict[str, Program]:
        """The two model servers, each under several names."""
        return {
            kind: Program(
                self._folder / f"{kind}.log",
                f"tollkeeper.samples.{kind}",
                *("--listen", self.servers[kind], "--model", ",".join(names)),
            )
            for kind, names in SAMPLES.items()
        }

    def write_operators_file(self, file: Path) -> None:
        """What an operator lays beside our files: new certificates, of the listener and of both sides of the gate."""
        other = self.authority.give(
            OTHER_HOST, alone=True
        )  # Envoy Gateway takes no two certificates with a name in common
        objects = [_secret(WEB, *self.authority.give(HOST)), _secret(OTHER_WEB, *other)]
        if self.wiring.mutual_tls:
            objects.append(_secret(GATE_CLIENT, *self.authority.give("client")))
            objects.append(_object("ConfigMap", GATE_CA, data={"ca.crt": self.authority.ca.read_text()}))
        draft = file.with_name(f".{file.name}")  # such a name is not read
        draft.write_text(yaml.safe_dump_all(objects))
        draft.replace(file)


def _secret(name: str, certificate: Path, key: Path) -> dict[str, Any]:
    files = {"tls.crt": certificate, "tls.key": key}
    data = {field: base64.b64encode(path.read_bytes()).decode() for field, path in files.items()}
    return _object("Secret", name, type="kubernetes.io/tls", data=data)


def _object(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **fields}
