"""docs/troubleshooting.md: its commands are run as they stand and print what it says; its codes are the code's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import grpc
import pytest
from upmachine import UpMachine, up_machine

from admin.http.problems import Code
from extauth.reasons import WIRE
from ratelimit.usage.facts import Metering
from runtime.readiness import Ailment
from tests.e2e.guide.reader import need
from tests.e2e.proxy import short_folder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE)
RUN = [(text, printed) for language, text, printed in BLOCKS if language == "bash"]
WAIT_S = 60
OF_THE_PROXY = {
    *("malformed_request", "request_headers_too_large", "request_too_large", "upgrade_not_supported"),
    *("upstream_timeout", "upstream_unavailable", "gate_unavailable"),
    *("not_served", "not_grpc"),  # of gRPC
    *("path_normalization_failed", "missing_host_header"),  # Envoy's own words
}
NOT_CODES = {"max_tokens", "session_id"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass
class Shell:
    """Somebody who types the page's commands one after the other; what he exports stays."""

    machine: UpMachine
    exported: dict[str, str] = field(default_factory=dict)

    def types(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a block."""
        names = re.findall(r"^export (\w+)=", text, re.MULTILINE)
        told = "".join(f"\nprintf '%s\\0' \"${name}\" >&3" for name in names)
        reading, writing = os.pipe()
        with os.fdopen(reading) as kept:
            done = subprocess.run(
                ["bash", "-e", "-c", f"exec 3>&{writing}\n{text}{told}"],
                cwd=self.machine.state.parent,
                env=os.environ | self.exported,
                pass_fds=[writing],
                capture_output=True,
                text=True,
                check=False,
                timeout=WAIT_S,
            )
            os.close(writing)
            self.exported |= dict(zip(names, kept.read().split("\0"), strict=False))
        return done


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """Beside a machine of his own, whose folder is where `make up` has it."""
    need("jq", "curl")
    with short_folder() as folder, up_machine(folder / ".tollkeeper") as machine:
        yield Shell(machine)


@pytest.mark.parametrize("number", range(len(RUN)))
def test_what_the_page_says_works(shell: Shell, number: int) -> None:
    """In the page's order: each command prints what is written below it."""
    text, printed = RUN[number]
    done = shell.types(text)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.fullmatch(re.escape(printed.rstrip("\n")).replace("…", ".*"), done.stdout.rstrip("\n")), done.stdout


def test_only_a_clusters_commands_are_not_run() -> None:
    """Everything else a reader can paste is run above."""
    rest = [text for language, text, _ in BLOCKS if language != "bash"]
    commands = [line for text in rest for line in text.splitlines() if not line.startswith("#")]
    assert commands
    assert {line.split()[0] for line in commands} == {"kubectl"}


def test_every_code_on_the_page_is_one() -> None:
    """Of the API, of the gate, of a page of readiness, or of the proxy; metrics are on the page of operations."""
    modules = [import_module(f"{path.parent.name}.troubles") for path in ROOT.glob("*/troubles.py")]
    troubles = {one.code for module in modules for one in vars(module).values() if isinstance(one, Ailment)}
    known = {wire.code for wire in WIRE.values()} | troubles | OF_THE_PROXY
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE))
    metrics = {name for name in named if name.startswith("tollkeeper_")}
    assert all(f"`{name}`" in OPERATIONS for name in metrics)
    assert named - known - metrics <= NOT_CODES
    of_grpc = {one.name for one in grpc.StatusCode} | {"RST_STREAM"}
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE)) - of_grpc <= set(Code)
    assert all(f"`{one.value}`" in PAGE for one in Metering)
