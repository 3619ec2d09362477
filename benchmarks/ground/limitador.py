"""Limitador as a contender, where LIMITADOR_BIN names its server: with Redis, where its counts are shared as ours."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from benchmarks.ground import limits
from benchmarks.ground.contenders import Contender
from benchmarks.ground.h2load import Target
from benchmarks.ground.processes import accepts, await_that, free_port, running, valkey
from benchmarks.ground.ratelimit import PATH
from protos.rate_limit_pb2 import RateLimitResponse

SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600}


def binary() -> str:
    """The server's program; "" where there is none to compare with."""
    return os.environ.get("LIMITADOR_BIN", "")


@contextlib.contextmanager
def limitador() -> Iterator[Contender]:
    """Run it, with a Valkey of its own, under calls that meet a limit of a second, a minute and an hour each."""
    with valkey() as store, tempfile.TemporaryDirectory(prefix="tk-") as folder:
        file, ports = Path(folder) / "limits.yaml", (free_port(), free_port())
        file.write_text("\n".join(map(_limit, SECONDS)), encoding="utf-8")
        command = [binary(), "--rls-ip", "127.0.0.1", "--rls-port", str(ports[0])]
        command += ["--http-ip", "127.0.0.1", "--http-port", str(ports[1])]
        command += [str(file), "redis", f"redis://127.0.0.1:{store.port}"]
        with running(command, Path(folder) / "log") as process:
            await_that(lambda: accepts(ports[0]), "a listening Limitador")
            payload = limits.question("key")
            call = grpc.insecure_channel(f"127.0.0.1:{ports[0]}").unary_unary(PATH)
            parts = {"server": [process.pid], "store": [store.pid]}
            with store.client() as counts:
                made = Contender("Limitador", Target(ports[0], PATH, payload), parts, lambda: 0)
                made.probe = lambda: _left(call(payload, timeout=10), counts)
                yield made


def _limit(window: str) -> str:
    most = limits.HOUR if window == "hour" else limits.PLENTY
    return (
        f"- {{namespace: {limits.DOMAIN}, max_value: {most}, seconds: {SECONDS[window]}, "
        f"conditions: [], variables: ['descriptors[0].key']}}"
    )


def _left(answer: bytes, counts: object) -> int:
    """Limitador's answer tells no count; its store does."""
    response = RateLimitResponse.FromString(answer)
    if response.overall_code != RateLimitResponse.OK:
        raise SystemExit("Limitador refused a call")
    return -max(int(value) for value in counts.mget(counts.keys("*")) if value)  # type: ignore[attr-defined]
