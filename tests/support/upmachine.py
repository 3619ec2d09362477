"""One ``tollkeeper up`` for tests: started as an operator does, read by its ``up.json``, stopped by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parents[2]
START_S = 90
STOP_S = 20
LAST_LINE = "Ctrl-C stops everything."
FREE_PORTS = {f"TOLLKEEPER_{name}_PORT": "0" for name in ("GATEWAY", "HTTPS", "ADMIN", "METRICS", "ADMIN_METRICS")}


def until(condition: Callable[[], bool], seconds: float = 10, *, every_s: float = 0.01) -> bool:
    """Poll: foreign processes have no event of ours."""
    deadline_s = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline_s:
        time.sleep(every_s)
    return met


def processes_logging_to(folder: Path) -> dict[int, str]:
    """Running processes whose standard output is a file below this folder: process id -> command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "fd/1").readlink().is_relative_to(folder):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


SOURCE: Final = (sys.executable, "-m", "tollkeeper")
"""The command ``tollkeeper`` of the source tree."""


def up_command(state: Path, *options: str, program: Sequence[str] = SOURCE) -> list[str]:
    """Return the command line of a machine."""
    return [*program, "up", "--state", str(state), *options]


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a machine: free ports unless said otherwise."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLKEEPER_")}
    return {**clean, **FREE_PORTS, **settings}


def refused(state: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a machine that ends by itself."""
    return subprocess.run(
        up_command(state, *options),
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )


class UpMachine:
    """A machine that runs."""

    def __init__(self, state: Path, process: subprocess.Popen[bytes], output: Path) -> None:
        self.state = state
        self.process = process
        self._output = output
        self.up: dict[str, Any] = json.loads((state / "up.json").read_text())

    @property
    def printed(self) -> str:
        """What the operator has read so far."""
        return self._output.read_text()

    @property
    def children(self) -> dict[int, str]:
        """Its running processes: process id -> command line."""
        return processes_logging_to(self.state / "logs")

    def pasted(self, title: str) -> subprocess.CompletedProcess[str]:
        """Run the printed command below this title in a shell, as if pasted."""
        lines = self.printed.splitlines()
        command = lines[lines.index(title) + 1].strip()
        return self.shell(command)

    def shell(self, command: str, *, within_s: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in bash."""
        variables = {**os.environ, **variables}
        return subprocess.run(
            ["bash", "-c", command], env=variables, capture_output=True, text=True, check=False, timeout=within_s
        )

    def guide(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the guide: with the machine's CURL_HOME."""
        return self.shell(command, CURL_HOME=str(self.state / "curl"), **variables)

    def stop(self, one: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(one)
        return self.process.wait(STOP_S)


@contextmanager
def up_machine(
    state: Path, *options: str, program: Sequence[str] = SOURCE, cwd: Path = ROOT, **settings: str
) -> Iterator[UpMachine]:
    """Start a machine on this folder; it is stopped at the end unless the test did."""
    output = state.with_name(f"{state.name}.output")
    with (
        output.open("wb") as written,
        subprocess.Popen(
            up_command(state, *options, program=program),
            cwd=cwd,
            env=environment(**settings),
            stdout=written,
            stderr=written,
        ) as process,
    ):
        try:
            started = until(lambda: LAST_LINE in output.read_text() or process.poll() is not None, START_S)
            assert started, f"not up within {START_S} s:\n{output.read_text()}"
            assert process.poll() is None, output.read_text()
            yield UpMachine(state, process, output)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_S)
