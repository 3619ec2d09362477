"""h2load (Debian's nghttp2-client) as the generator: a gRPC call, or an HTTP/1.1 request, so many times."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONNECTIONS: Final = 4
STREAMS: Final = 16
_FINISHED: Final = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
_COUNTS: Final = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded")


@dataclass(frozen=True)
class Target:
    """Where a call goes, and what it is."""

    port: int
    path: str
    payload: bytes  # a gRPC message, or an HTTP body
    headers: tuple[str, ...] = ()  # "name: value"; of HTTP/1.1 calls
    is_grpc: bool = True


@dataclass(frozen=True)
class Load:
    """What the generator saw."""

    calls: int
    calls_a_second: float
    latencies_us: tuple[int, ...] = ()  # sorted; only where asked for

    def percentile_us(self, percent: float) -> float:
        """The latency that so many of a hundred calls do not exceed."""
        return self.latencies_us[min(len(self.latencies_us) - 1, int(len(self.latencies_us) * percent / 100))]

    @property
    def median_us(self) -> float:
        """The latency in the middle."""
        return statistics.median(self.latencies_us)


def require() -> None:
    """End with a sentence where the generator is missing."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing: install Debian's nghttp2-client")


def load(
    target: Target,
    calls: int,
    *,
    connections: int = CONNECTIONS,
    streams: int = STREAMS,
    calls_a_second: int = 0,
    latencies: bool = False,
) -> Load:
    """Make exactly so many calls, in a closed loop or at a rate; every one must end with status 200 of HTTP.

    ``latencies`` are told of each call, which costs the generator a little more.
    """
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        log = Path(folder) / "log"
        words = [f"-c{connections}", f"-m{streams}", f"-n{calls}", "-t1"]
        words += [f"--rps={calls_a_second / connections:g}"] if calls_a_second else []
        words += [f"--log-file={log}"] if latencies else []
        said = _run([*words, *_request(target, Path(folder) / "body")])
        taken = sorted(int(line.split(b"\t")[2]) for line in log.read_bytes().splitlines()) if latencies else ()
        return Load(calls, _checked(said, calls), tuple(taken))


def _request(target: Target, body: Path) -> Sequence[str]:
    if not target.is_grpc:
        body.write_bytes(target.payload)
        words = ["--h1", *(word for header in target.headers for word in ("-H", _named(header)))]
        words += ["-d", str(body)] if target.payload else []
        return [*words, f"http://127.0.0.1:{target.port}{target.path}"]
    body.write_bytes(b"\0" + len(target.payload).to_bytes(4, "big") + target.payload)
    words = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body)]
    return [*words, f"http://127.0.0.1:{target.port}{target.path}"]


def _named(header: str) -> str:
    """h2load knows the host by HTTP/2's name alone."""
    return header.replace("host: ", ":authority: ", 1) if header.startswith("host: ") else header


def _run(words: Sequence[str]) -> str:
    return subprocess.run(["h2load", *words], check=True, capture_output=True, text=True).stdout


def _checked(said: str, calls: int) -> float:
    counts, finished = _COUNTS.search(said), _FINISHED.search(said)
    if counts is None or finished is None or {int(number) for number in counts.groups()} != {calls}:
        raise SystemExit(f"h2load: not every call was answered:\n{said}")
    return float(finished[1])
