"""docs/openai.md: what it tells a reader to run is run, and prints what it says; its tables say what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from upmachine import UpMachine, up_machine

from extauth.reasons import WIRE
from tests.e2e.guide.reader import need
from tests.e2e.proxy import short_folder

PAGE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
RUNNERS = {"python": [sys.executable, "-"], "js": ["node", "--input-type=module", "-"], "bash": ["bash", "-e", "-"]}
WAIT_S = 60
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Block:
    """A command of the page and what it says is printed; "…" stands for anything within a line."""

    language: str
    text: str
    printed: str

    def expects(self, output: str) -> bool:
        """Whether this is what the page says."""
        return re.fullmatch(re.escape(self.printed).replace("…", ".*"), output) is not None


BLOCKS = [Block(*(part or "" for part in found)) for found in _BLOCK.findall(PAGE)]
START, SETUP, *COMMANDS = BLOCKS


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """Started as the page says, on free ports."""
    *settings, make, up = START.text.split()
    assert (make, up) == ("make", "up")
    with (
        short_folder() as folder,
        up_machine(folder / "state", **dict(setting.split("=") for setting in settings)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def variables(machine: UpMachine) -> dict[str, str]:
    """What the reader's shell exports, with this machine's folder and port."""
    need("jq", "curl", "node")
    port = machine.up["gateway_url"].rpartition(":")[2]
    told = SETUP.text.replace(":8080", f":{port}").replace(".tollkeeper/", f"{machine.state}/")
    done = subprocess.run(["bash", "-e", "-c", told + "env -0"], capture_output=True, text=True, check=True)
    exported = dict(one.split("=", 1) for one in done.stdout.split("\0") if one)
    return {name: exported[name] for name in re.findall(r"^export (\w+)=", SETUP.text, re.MULTILINE)}


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: f"{block.language}-{len(block.text)}")
def test_what_the_page_says_works(variables: dict[str, str], block: Block) -> None:
    """Each command is run as it stands and prints what is written below it."""
    done = subprocess.run(
        RUNNERS[block.language],
        input=block.text,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert block.expects(done.stdout), done.stdout


def test_every_refusal_of_the_gate_is_in_the_table() -> None:
    """Status and code of each answer that a caller of an openai model can get from the gate."""
    table = PAGE[PAGE.index("## Errors") : PAGE.index("## Retries")]
    told = {(int(status), code) for status, code in re.findall(r"^\| (\d+) \| `(\w+)`", table, re.MULTILINE)}
    codes = {(wire.status, wire.code) for wire in WIRE.values() if 400 <= wire.status < 500}
    assert codes - told == {(404, "not_found"), (415, "grpc_required")}  # of a path with nothing, of models of gRPC
    assert told - codes == {
        (400, "malformed_request"),
        (400, "invalid_encoding"),
        (426, "upgrade_not_supported"),
        (431, "request_headers_too_large"),
        (408, "request_timeout"),
        (413, "request_too_large"),
        (503, "overloaded"),
        (503, "gate_unavailable"),
        (503, "upstream_unavailable"),
        (504, "upstream_timeout"),
    }
