"""docs/kserve.md: its server, its commands and its client are run as they stand, on a machine that others share."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import requests
from clients import client_family
from upclient import Operator
from upmachine import UpMachine, until
from valkeys import free_port

from tests.e2e.guide.reader import need
from tests.e2e.proxy import short_folder
from tollkeeper.up.settings import UpSettings

PAGE = (Path(__file__).parents[2] / "docs/kserve.md").read_text()
BLOCK = re.compile(r"^( *)```(bash|python)\n(.*?)^\1```$(?:\n\1```text\n(.*?)^\1```$)?", re.DOTALL | re.MULTILINE)
BETWEEN = "\x1e"
WAIT_S = 60

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Block:
    """A part of the page that is run, and what it says is printed."""

    language: str
    text: str
    printed: str


def blocks() -> list[Block]:
    """Those of the first section; what follows it are parts of programs."""
    section = PAGE[PAGE.index("## Your own server") : PAGE.index("## Base URLs")]
    return [Block(language, dedent(text), dedent(printed)) for _, language, text, printed in BLOCK.findall(section)]


SERVER, *STEPS = blocks()
(PORT,) = re.findall(r"http_port=(\d+)", SERVER.text)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """KServe's own server, as the page writes it, at a free port; its URL."""
    python, port = client_family("kserve").program("python"), free_port()
    text = SERVER.text.replace(PORT, str(port))
    with (
        short_folder() as folder,
        (folder / "log").open("w+") as log,
        subprocess.Popen([python, "-c", text], cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            ready = until(lambda: answers(f"{url}/v1/models/sums") or process.poll() is not None, WAIT_S, every_s=0.1)
            assert ready, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            process.kill()


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def printed(up: UpMachine, server: str) -> Iterator[list[str]]:
    """What each block printed, pasted in order into one shell; one that fails ends the rest."""
    need("jq", "curl")
    python = client_family("kserve").program("python")
    shell = "set -euo pipefail\n" + f"printf '{BETWEEN}'\n".join(
        one.text if one.language == "bash" else f"{python} - <<'END'\n{one.text}END\n" for one in STEPS
    )
    shell = shell.replace(f"http://127.0.0.1:{PORT}", server).replace(".tollkeeper/", f"{up.state}/")
    try:
        done = up.shell(shell, within_s=WAIT_S)
        assert done.returncode == 0, done
        yield done.stdout.split(BETWEEN)
    finally:
        operator = Operator(up)
        for path in ("/api/models/sums/publish", "/api/models/sums"):
            operator.ask("DELETE", path)


def test_the_page_prints_what_it_says(printed: list[str]) -> None:
    """KServe's own server is registered, published and called, by curl and by KServe's client; the sample too."""
    assert [one.strip() for one in printed] == [one.printed.strip() for one in STEPS]


def test_all_of_the_section_is_run() -> None:
    """The server, and three steps; no command is in a block that is passed over."""
    assert [one.language for one in (SERVER, *STEPS)] == ["python", "bash", "bash", "python"]
    assert all(one.printed for one in STEPS)


def test_the_server_takes_no_port_of_the_machines() -> None:
    """Both can run as the page says."""
    taken = [field.default for name, field in UpSettings.model_fields.items() if name.endswith("_port")]
    assert len(taken) == 5
    assert int(PORT) not in taken
