"""The gate as its operator starts it: a process of ``tollkeeper gate`` on a Unix socket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from gatebench import Asker, wait_until

ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"listening: .*http (\S+)\n")


def tollkeeper(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    command = [sys.executable, "-m", "tollkeeper", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@dataclass
class GateProcess:
    """A gate process that was ready."""

    asker: Asker
    target: str
    url: str
    process: subprocess.Popen[bytes]

    def ready(self) -> dict[str, Any]:
        """What ``/readyz`` says."""
        return dict(requests.get(f"{self.url}/readyz", timeout=10).json())

    def warnings(self) -> set[str]:
        """The codes of what it warns of."""
        return {warning["code"] for warning in self.ready()["warnings"]}

    def metric(self, line: str) -> float:
        """The sum of the samples whose lines begin with this."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return sum(float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line))


@contextmanager
def gate_process(url: str, secrets: Path, *more: str, root: Path = ROOT) -> Iterator[GateProcess]:
    """Run the gate with this store, this secrets file and further options; ``root``: another tree's."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        target = f"unix:{folder}/gate.sock"
        options = ["--redis-url", url, "--secrets-file", str(secrets), "--listen", target]
        options += ["--http-listen", "127.0.0.1:0", "--drain-s", "0", "--store-wait-ms", "190", *more]
        command = [sys.executable, "-m", "tollkeeper", "gate", *options]
        log = Path(folder, "log")
        paths = {} if root == ROOT else {"PYTHONPATH": str(root)}  # before any other that the tests run on
        environment = {**os.environ, **paths}
        with log.open("wb") as written, subprocess.Popen(command, cwd=root, env=environment, stderr=written) as process:
            try:
                wait_until(lambda: LISTENING.search(log.read_text()) is not None or process.poll() is not None, 60)
                found = LISTENING.search(log.read_text())
                assert found, log.read_text()
                asker = Asker(target)
                gate = GateProcess(asker, target, f"http://{found[1]}", process)
                wait_until(lambda: bool(gate.ready()["ready"]), 30)
                yield gate
                asker.close()
            finally:
                process.terminate()  # says nothing where a test has killed it
                process.wait(20)
