"""The plan of one machine: which program listens where, and the command that starts it. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.envoy.bootstrap import BootstrapOptions
from ratelimit.tokens.meter import Meter
from runtime.addresses import UnixAddress, numbered
from runtime.grpc.tls import TlsFiles
from tollkeeper.up.https import certificate_files
from tollkeeper.up.ports import LOOPBACK
from tollkeeper.up.state import Layout

IRIS: Final = "iris-sample"
CHAT: Final = "chat-sample"
SAMPLES: Final = {"traditional": IRIS, "openai": CHAT}
"""The samples' models, by the kinds under which ``up.json`` lists them."""

KSERVE_NAMES: Final = (IRIS, "my-model", "tenant-b-model")
OPENAI_NAMES: Final = (CHAT, "my-llm")

MAX_HEAP_BYTES: Final = 512 * 1024 * 1024
"""Envoy's memory on a machine that does other work too."""

CHECK_SLACK_MS: Final = 100
"""How much longer than two waits on the store Envoy waits for the gate: a call may wait behind a batch that waits."""

CALLS_PER_MINUTE: Final = 60_000
"""Of the one who has the machine: his scripts ask in loops."""

Command = Sequence[str]


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports, all on the loopback interface."""

    gateway: int
    https: int
    admin: int
    gate_http: int
    admin_http: int
    kserve: int
    openai: int

    def own(self) -> tuple[int, ...]:
        """Ports that no registered model may name: the machine's own, without the samples'."""
        return (self.gateway, self.https, self.admin, self.gate_http, self.admin_http)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that is fixed before anything starts."""

    layout: Layout
    ports: Ports
    default_host: str
    https_names: tuple[str, ...]
    tls: bool  # http only sends callers to https
    own_certificates: tuple[TlsFiles, ...]  # the operator's, for https; none: the machine's own
    admin_username: str
    cors_origins: tuple[str, ...]  # of pages that may call from a browser
    max_body_bytes: int  # of an openai call
    meter: Meter  # where the gate finds what an answer cost
    key_recovery: bool
    upstream_ca: str  # the certificates of model servers on https are held to
    workers: int  # processes of the gate
    store_wait_ms: int  # of each
    log_options: tuple[str, ...]  # what the operator asked of logs, for our own processes

    @property
    def redis_url(self) -> str:
        """The store, as clients name it."""
        return f"unix://{self.layout.socket('valkey')}"

    @property
    def grpc_targets(self) -> list[str]:
        """The gate's workers, as Envoy names them."""
        return _numbered(self.gate_listen, self.workers)

    @property
    def gate_listen(self) -> UnixAddress:
        """What the gate is told to listen on."""
        return UnixAddress(self.layout.socket("gate"))

    @property
    def endings_listen(self) -> UnixAddress:
        """Where the gate is told to hear how calls ended."""
        return UnixAddress(self.layout.socket("endings"))

    @property
    def endings_targets(self) -> list[str]:
        """The workers' addresses for that, as Envoy names them."""
        return _numbered(self.endings_listen, self.workers)

    @property
    def gateway_url(self) -> str:
        """Where callers come in."""
        return self.https_url if self.tls else self.http_url

    @property
    def http_url(self) -> str:
        """Where callers come in without TLS."""
        return f"http://{LOOPBACK}:{self.ports.gateway}"

    @property
    def https_url(self) -> str:
        """Where callers come in over TLS: by a name that the certificate has."""
        name = self.default_host if self.own_certificates else "localhost"
        return f"https://{name}:{self.ports.https}"

    @property
    def default_urls(self) -> tuple[str, ...]:
        """Where callers on this machine reach the default host, by names that need no name server."""
        if self.tls and self.own_certificates:  # which are not good for localhost
            return (self.https_url, f"https://localhost:{self.ports.https}", f"https://{LOOPBACK}:{self.ports.https}")
        scheme, port = ("https", self.ports.https) if self.tls else ("http", self.ports.gateway)
        return tuple(f"{scheme}://{name}:{port}" for name in ("localhost", LOOPBACK))

    @property
    def probe_url(self) -> str:
        """Where the publisher asks what is served: by address, for this machine need not know the names of hosts."""
        return f"https://{LOOPBACK}:{self.ports.https}" if self.tls else self.http_url

    @property
    def authority(self) -> Path | None:
        """What callers must trust for https; ``None``: the operator's certificates have authorities of their own."""
        return None if self.own_certificates else self.layout.tls / "ca.pem"

    @property
    def certificates(self) -> tuple[TlsFiles, ...]:
        """What https shows."""
        own = TlsFiles(self.layout.tls / "server.pem", self.layout.tls / "server.key", None)
        return self.own_certificates or (own,)

    @property
    def admin_url(self) -> str:
        """The admin API."""
        return f"http://{LOOPBACK}:{self.ports.admin}"

    @property
    def admin_http_url(self) -> str:
        """The admin's health and metrics."""
        return f"http://{LOOPBACK}:{self.ports.admin_http}"

    @property
    def gate_url(self) -> str:
        """The gate's health and metrics."""
        return f"http://{LOOPBACK}:{self.ports.gate_http}"

    @property
    def kserve_url(self) -> str:
        """The KServe sample."""
        return f"http://{LOOPBACK}:{self.ports.kserve}"

    @property
    def openai_url(self) -> str:
        """The OpenAI sample."""
        return f"http://{LOOPBACK}:{self.ports.openai}"

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """What the https certificate is good for."""
        return (self.default_host, *self.https_names, "localhost", LOOPBACK, "::1")


def valkey_command(binary: str, layout: Layout) -> Command:
    """A store that has on disk what it answered, on a Unix socket only."""
    options = {
        "port": "0",
        "unixsocket": str(layout.socket("valkey")),
        "unixsocketperm": "700",
        "dir": str(layout.valkey),
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def gate_command(machine: Machine) -> Command:
    """The gate; Envoy goes before it, so it need not wait before it closes."""
    return _ours(
        machine,
        "gate",
        {
            "redis-url": machine.redis_url,
            "listen": str(machine.gate_listen),
            "endings-listen": str(machine.endings_listen),
            "usage-metadata": str(machine.meter),
            "workers": str(machine.workers),
            "store-wait-ms": str(machine.store_wait_ms),
            "http-listen": f"{LOOPBACK}:{machine.ports.gate_http}",
            "secrets-file": str(machine.layout.secrets),
            "drain-s": "0",
        },
    )


def admin_command(machine: Machine) -> Command:
    """The admin API, which publishes to Envoy's files; the password comes by the environment."""
    switch = ["--key-recovery"] if machine.key_recovery else []
    origins = ["--cors-origins", ",".join(machine.cors_origins)] if machine.cors_origins else []
    return [
        *_ours(
            machine,
            "admin",
            {
                "redis-url": machine.redis_url,
                "listen": f"{LOOPBACK}:{machine.ports.admin}",
                "http-listen": f"{LOOPBACK}:{machine.ports.admin_http}",
                "secrets-file": str(machine.layout.secrets),
                "publish-to": f"files:{machine.layout.published}",
                "envoy-admin-socket": str(machine.layout.socket("envoy-admin")),
                "upstream-ca": machine.upstream_ca,
                "probe-url": machine.probe_url,
                "default-host": machine.default_host,
                "default-urls": ",".join(machine.default_urls),
                "admin-username": machine.admin_username,
                "probe-allow": "127.0.0.0/8,::1",
                "user-calls-per-minute": str(CALLS_PER_MINUTE),
                "probe-refuse-ports": ",".join(map(str, machine.ports.own())),
            },
        ),
        *switch,
        *origins,
    ]


def sample_command(kind: str, port: int, names: Sequence[str]) -> Command:
    """A sample model server; ``kind`` is its module."""
    module = f"tollkeeper.samples.{kind}"
    return [sys.executable, "-P", "-m", module, "--listen", f"{LOOPBACK}:{port}", "--model", ",".join(names)]


def envoy_command(binary: str, machine: Machine) -> Command:
    """One Envoy with one worker thread; it is never hot-restarted, so it shares no memory with others."""
    return [
        *(binary, "--config-path", str(machine.layout.envoy / "bootstrap.json")),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
    ]


def envoy_options(machine: Machine) -> BootstrapOptions:
    """How Envoy is set up."""
    return BootstrapOptions(
        folder=str(machine.layout.published),
        admin_socket=str(machine.layout.socket("envoy-admin")),
        gate=machine.grpc_targets,
        http_port=machine.ports.gateway,
        https_port=machine.ports.https,
        certificates=[str(file) for file in certificate_files(machine.layout.certificates, machine.certificates)],
        redirect_port=machine.ports.https if machine.tls else None,
        max_body_bytes=machine.max_body_bytes,
        endings=machine.endings_targets,
        max_heap_bytes=MAX_HEAP_BYTES,
        check_timeout_ms=2 * machine.store_wait_ms + CHECK_SLACK_MS,
    )


def _numbered(listen: UnixAddress, workers: int) -> list[str]:
    """The addresses of so many workers, of which a single one has the address itself."""
    return [str(listen if workers == 1 else numbered(listen, one)) for one in range(workers)]


def _ours(machine: Machine, process: str, options: Mapping[str, str]) -> Command:
    words = (word for name, value in options.items() for word in (f"--{name}", value))
    return [sys.executable, "-P", "-m", "tollkeeper", process, *words, *machine.log_options]
