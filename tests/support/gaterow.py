"""A gate of several workers as a process: started, asked over HTTP, and looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from gatebench import wait_until
from prometheus_client.parser import text_string_to_metric_families


@dataclass
class GateRow:
    """The parent process and what it says."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def ready(self) -> dict[str, Any]:
        """What /readyz tells."""
        told: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=10).json()
        return told

    def workers(self) -> list[dict[str, Any]]:
        """What /readyz tells of each worker."""
        told: list[dict[str, Any]] = self.ready()["workers"]
        return told

    def pids(self) -> list[int]:
        """Of the workers that run."""
        return [worker["pid"] for worker in self.workers() if worker["pid"]]

    def targets(self) -> list[str]:
        """Where the workers listen."""
        return [worker["listen"] for worker in self.workers()]

    def total(self, sample: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
        return sum(one.value for one in samples if one.name == sample and labels.items() <= one.labels.items())


def command(*options: str, module: str = "tollkeeper") -> list[str]:
    """The command of a gate."""
    return [sys.executable, "-m", module, "gate", *options]


@contextmanager
def gate_row(
    redis_url: str,
    secrets_file: Path,
    *options: str,
    module: str = "tollkeeper",
    environment: Mapping[str, str] | None = None,
) -> Iterator[GateRow]:
    """Run a gate until it is ready; it is gone afterwards, with every worker. ``module`` is Python's ``-m``."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder:
        log = Path(folder) / "log"
        words = ["--redis-url", redis_url, "--secrets-file", str(secrets_file), "--http-listen", "127.0.0.1:0"]
        if "--listen" not in options:
            words += ["--listen", f"unix:{folder}/gate.sock"]
        line = command(*words, *options, module=module)
        with log.open("wb") as said, subprocess.Popen(line, stderr=said, env=environment) as process:
            row = GateRow(process, log)
            try:
                wait_until(lambda: ", http 127.0.0.1:" in log.read_text() or process.poll() is not None, timeout_s=60)
                assert process.poll() is None, log.read_text()
                row.url = "http://127.0.0.1:" + log.read_text().split(", http 127.0.0.1:")[1].split()[0]
                wait_until(lambda: row.ready()["ready"], timeout_s=30)
                yield row
            finally:
                process.kill()


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and waits to be buried does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(pid: int) -> None:
    """End a process as the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)
