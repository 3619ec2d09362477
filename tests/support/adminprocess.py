"""The admin as its operator starts it: a process of ``tollkeeper admin`` on a free port."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatebench import wait_until

ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"listening: (\S+)")
UNHURRIED = "1000000"
"""Calls a minute: tests ask in loops until something is so."""
FACE = re.compile(r"health and metrics: (\S+)")


@dataclass
class AdminProcess:
    """An admin process that listens."""

    url: str
    face_url: str  # of its health and metrics
    process: subprocess.Popen[bytes]


@contextmanager
def admin_process(*options: str) -> Iterator[AdminProcess]:
    """Run the admin with these options until the body ends."""
    listen = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "tollkeeper", "admin", *listen, "--user-calls-per-minute", UNHURRIED, *options]
    with tempfile.TemporaryDirectory(prefix="tk-admin-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as written, subprocess.Popen(command, cwd=ROOT, stderr=written) as process:
            try:
                wait_until(lambda: "listening: " in log.read_text() or process.poll() is not None, 60)
                found, face = (told.search(log.read_text()) for told in (LISTENING, FACE))
                assert found, log.read_text()
                assert face, log.read_text()
                yield AdminProcess(f"http://{found[1]}", f"http://{face[1]}", process)
            finally:
                process.terminate()
                process.wait(20)
