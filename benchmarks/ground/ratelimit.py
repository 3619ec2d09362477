"""envoyproxy/ratelimit as a contender: built by benchmarks/peers.sh, with the tuning that served it best."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from benchmarks.ground import limits
from benchmarks.ground.contenders import Contender
from benchmarks.ground.h2load import Target
from benchmarks.ground.processes import accepts, await_that, free_port, running, valkey
from benchmarks.ground.store import Store

PATH: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
TUNING: Final[Mapping[str, str]] = {
    "USE_STATSD": "false",
    "LOG_LEVEL": "ERROR",
    "REDIS_SOCKET_TYPE": "unix",
    "REDIS_POOL_SIZE": "1",
}
LOCAL_CACHE: Final[Mapping[str, str]] = {"LOCAL_CACHE_SIZE_IN_BYTES": "1048576"}
"""Answers who is over the limit from memory; for the row that compares just that."""


@dataclass(frozen=True)
class RateLimit:
    """It, while it runs."""

    port: int
    pid: int
    store: Store
    socket: Path | None = None  # where it listens instead of at the port

    def contender(self, name: str, *keys: str) -> Contender:
        """It under calls with these descriptors."""
        payload = limits.question(*keys)
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        call = channel.unary_unary(PATH)
        parts = {"server": [self.pid], "store": [self.store.pid]}
        target = Target(self.port, PATH, payload)
        return Contender(name, target, parts, lambda: limits.remaining(call(payload, timeout=10)))


def binary() -> Path:
    """Where it is; built where it is not yet."""
    script = Path(__file__).parent.parent / "peers.sh"
    return Path(subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@contextlib.contextmanager
def ratelimit(tuning: Mapping[str, str] = TUNING, *, on_unix: bool = False) -> Iterator[RateLimit]:
    """Run it, with a Valkey of its own, on loopback or on a Unix socket."""
    program = binary()
    with valkey() as store, tempfile.TemporaryDirectory(prefix="tk-") as folder:
        config = Path(folder) / "ratelimit" / "config"
        config.mkdir(parents=True)
        (config / "config.yaml").write_text(limits.DESCRIPTORS, encoding="utf-8")
        ports = {name: free_port() for name in ("PORT", "DEBUG_PORT", "GRPC_PORT")}
        url = str(store.path) if tuning["REDIS_SOCKET_TYPE"] == "unix" else f"127.0.0.1:{store.port}"
        environment = {"RUNTIME_ROOT": folder, "RUNTIME_SUBDIRECTORY": "ratelimit", "REDIS_URL": url}
        environment |= {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1"}
        environment |= {name: str(port) for name, port in ports.items()} | dict(tuning)
        socket = Path(folder) / "ratelimit.sock" if on_unix else None
        environment |= {"GRPC_UDS": str(socket)} if socket else {}
        with running([str(program)], Path(folder) / "log", {**os.environ, **environment}) as process:
            await_that(lambda: socket.exists() if socket else accepts(ports["GRPC_PORT"]), "a listening ratelimit")
            yield RateLimit(ports["GRPC_PORT"], process.pid, store, socket)
