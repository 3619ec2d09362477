"""docs/anthropic.md does what it says: its commands and its Python, on a fresh tenant of a machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import client_family
from messagesserver import messages_server
from upmachine import UpMachine, up_machine

from extauth.dialects.anthropic import error_type
from extauth.reasons import WIRE
from tests.e2e.proxy import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = (Path(__file__).parents[2] / "docs/anthropic.md").read_text()


def block(language: str) -> tuple[str, str]:
    """The one block of a language that prints something, and what it prints."""
    ((text, printed),) = re.findall(rf"^```{language}\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return text, printed


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """A gateway of its own: the page's models are the default tenant's."""
    with short_folder() as folder, up_machine(folder / ".tollkeeper") as made:
        yield made


@pytest.fixture(scope="module")
def key(machine: UpMachine) -> Iterator[str]:
    """What the page's commands have come to."""
    commands, printed = block("bash")
    with messages_server("my-coder") as server:
        script = commands.replace("http://127.0.0.1:8000", server.url) + 'printf %s "$KEY" >&2\n'
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=machine.state.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, printed), done
        yield done.stderr


def test_the_commands(key: str) -> None:
    """They print what stands below them."""
    assert key.startswith("tk_")


def test_the_python(machine: UpMachine, key: str) -> None:
    """With Anthropic's own package."""
    family = client_family("anthropic")
    text, printed = block("python")
    where = {"ANTHROPIC_BASE_URL": machine.up["gateway_url"], "ANTHROPIC_API_KEY": key}
    done = family.call(family.program("python"), "-c", text, **where)
    assert (done.returncode, done.stdout) == (0, printed), done


def test_every_status_of_the_gate_is_in_the_table() -> None:
    """With the type that it has."""
    table = PAGE[PAGE.index("## Errors") : PAGE.index("## Headers of an answer")]
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \|", table, re.MULTILINE)
    told = {status: kind for cell, kind in rows for status in re.findall(r"\d{3}", cell)}
    for wire in WIRE.values():
        if wire.status >= 400:
            kind = error_type(wire.status, wire.code)
            assert told[str(wire.status)] == kind or wire.code == "overloaded"
