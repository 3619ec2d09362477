"""The curl of a machine beside those of others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ratelimit.tokens.meter import Meter
from tollkeeper.up.machine import Machine, Ports
from tollkeeper.up.shell.curl import command
from tollkeeper.up.state import Layout

HOST = "api.example"


def machine(state: Path) -> Machine:
    """A machine with ports that nothing listens at."""
    return Machine(
        layout=Layout(state, state),
        ports=Ports(1, 2, 3, 4, 5, 6, 7),
        default_host=HOST,
        https_names=(),
        tls=False,
        own_certificates=(),
        admin_username="admin",
        cors_origins=(),
        max_body_bytes=1,
        meter=Meter(),
        key_recovery=False,
        upstream_ca="",
        workers=1,
        store_wait_ms=1,
        log_options=(),
    )


def write(folder: Path, program: str) -> str:
    """Put a curl into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curl").write_text(program)
    (folder / "curl").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_machines_find_the_curl_of_before(tmp_path: Path, order: tuple[str, str]) -> None:
    """Never each other for ever; the machine that is first in PATH is the one that is called."""
    folders = [write(tmp_path / one / "bin", command(machine(tmp_path / one), tmp_path / one / "rc")) for one in order]
    folders += [folders[0], write(tmp_path / "real", '#!/bin/sh\nprintf "%s\\n" "$@"\n')]
    environment = {"PATH": ":".join([*folders, "/usr/bin", "/bin"])}
    for words, given in (
        (["https://other.example"], ["https://other.example"]),
        ([f"https://{HOST}/x"], ["--config", str(tmp_path / order[0] / "rc"), f"https://{HOST}/x"]),
    ):
        for program in ("curl", f"{folders[0]}/curl"):
            called = subprocess.run(
                [program, *words], env=environment, capture_output=True, text=True, timeout=10, check=False
            )
            assert (called.stdout.splitlines(), called.stderr) == (given, "")


def test_a_curl_that_is_no_text_is_found_too(tmp_path: Path) -> None:
    """As the curl of most machines is."""
    folder = write(tmp_path / "bin", command(machine(tmp_path), tmp_path / "rc"))
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "curl").symlink_to("/bin/echo")
    environment = {"PATH": f"{folder}:{tmp_path / 'real'}:/usr/bin:/bin"}
    called = subprocess.run(["curl", "word"], env=environment, capture_output=True, text=True, timeout=10, check=False)
    assert (called.stdout, called.stderr) == ("word\n", "")
