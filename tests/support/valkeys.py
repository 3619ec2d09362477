"""Real Valkeys on free loopback ports, that a test may stop, kill, and put together."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import redis

START_S = 20


@dataclass(frozen=True, slots=True)
class Valkey:
    """A server of one test."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        """How it is reached."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A plain client, to look and to command."""
        return redis.Redis.from_url(self.url, socket_timeout=10)


PORTS: Final = range(10_000, 20_000)
"""What is handed out for port 0 and to clients lies above: it would be somebody's before a program has bound it."""


def free_port() -> int:
    """A loopback port that nobody has now; below the ephemeral ones, and with room for a Cluster's own bus."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port of this machine is free")


@contextlib.contextmanager
def running_valkey(binary: str, *options: str, port: int | None = None) -> Iterator[Valkey]:
    """A Valkey that answers; killed at the end whatever became of it."""
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="tk-valkey-") as folder:
        command = (
            [binary, *options] if options[:1] and options[0].endswith(".conf") else [binary, "--save", "", *options]
        )
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        with (Path(folder) / "log").open("wb") as log, subprocess.Popen(command, stdout=log) as process:
            valkey = Valkey(port, process, Path(folder))
            try:
                await_ping(valkey)
                yield valkey
            finally:
                process.kill()


def await_ping(valkey: Valkey) -> None:
    """Wait until it answers; fails the test after 20 s."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and valkey.process.poll() is None:
        with contextlib.suppress(redis.RedisError), valkey.client() as client:
            client.ping()
            return
        time.sleep(0.01)
    pytest.fail(f"valkey did not answer: {(valkey.folder / 'log').read_text()[-2000:]}")
