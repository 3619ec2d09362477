"""envoyproxy/ratelimit itself, as benchmarks/peers.sh builds it, asked what a file and its calls come to."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from benchmarks.ground.processes import accepts, await_that, free_port, running, valkey
from benchmarks.ground.ratelimit import PATH, TUNING
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse

PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollkeeper/peers"


def binary() -> Path:
    """Where it is; skips the test where it was not built, but for CI, which builds it."""
    script = Path(__file__).parents[2] / "benchmarks/peers.sh"
    version = next(line.partition("=")[2] for line in script.read_text().splitlines() if line.startswith("version="))
    built = PEERS / f"ratelimit-{version}/service_cmd"
    if not built.exists() and not os.environ.get("CI"):
        pytest.skip("benchmarks/peers.sh has not built envoyproxy/ratelimit here")
    return built


@contextlib.contextmanager
def ratelimit(files: dict[str, str]) -> Iterator[grpc.Channel]:
    """Run it on these files, with a Valkey of its own; a channel to it."""
    program = binary()
    with valkey() as store, tempfile.TemporaryDirectory(prefix="tk-") as folder:
        config = Path(folder) / "ratelimit" / "config"
        config.mkdir(parents=True)
        for name, text in files.items():
            (config / f"{name}.yaml").write_text(text, encoding="utf-8")
        ports = {name: str(free_port()) for name in ("PORT", "DEBUG_PORT", "GRPC_PORT")}
        environment = {"RUNTIME_ROOT": folder, "RUNTIME_SUBDIRECTORY": "ratelimit", "REDIS_URL": str(store.path)}
        environment |= {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1"}
        environment |= {"RESPONSE_DYNAMIC_METADATA": "true"} | ports | dict(TUNING)
        with running([str(program)], Path(folder) / "log", {**os.environ, **environment}):
            await_that(lambda: accepts(int(ports["GRPC_PORT"])), "a listening ratelimit")
            with grpc.insecure_channel(f"127.0.0.1:{ports['GRPC_PORT']}") as channel:
                yield channel


def asked_of(channel: grpc.Channel, requests: Sequence[RateLimitRequest]) -> list[RateLimitResponse]:
    """Its answers, in order; raises ``grpc.RpcError`` where it has no limits."""
    call = channel.unary_unary(PATH)
    return [RateLimitResponse.FromString(call(one.SerializeToString(), timeout=10)) for one in requests]
