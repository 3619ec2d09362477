"""The product installed as people install Python programs: by pip and by pipx, outside the source tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from upmachine import UpMachine, up_machine

from runtime.version import VERSION

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"^([A-Za-z0-9._-]+==[^ ;]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of the lock, without its hashes: a folder that is installed has none."""
    file = tmp_path_factory.mktemp("lock") / "constraints.txt"
    file.write_text("\n".join(LOCKED.findall((ROOT / "requirements.lock").read_text())))
    return file


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the source tree, with no way back to it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLKEEPER_", "PYTHON"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd="/",
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def made(folder: Path, *packages: str, constraints: Path) -> Path:
    """Make an environment with these packages; its folder of commands."""
    venv.create(folder, with_pip=True)
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints)
    done = run(folder / "bin/python", *pip, *packages)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, constraints: Path) -> Path:
    """The commands of an environment after ``pip install ".[up]"``."""
    return made(tmp_path_factory.mktemp("pip") / "venv", f"{ROOT}[up]", constraints=constraints)


def site_packages(commands: Path) -> Path:
    """Where an environment's packages are."""
    return next(commands.parent.glob("lib/python*/site-packages"))


def installed_files(commands: Path) -> set[str]:
    """Every file that installing the product has brought."""
    record = site_packages(commands) / f"tollkeeper-{VERSION}.dist-info" / "RECORD"
    return {line.split(",")[0] for line in record.read_text().splitlines()}


def test_one_import_name_is_brought_and_nothing_else(commands: Path) -> None:
    """No ``admin``, no ``ratelimit``: whatever somebody has of these names stays theirs."""
    tops = {file.partition("/")[0] for file in installed_files(commands) if not file.startswith("../")}
    assert tops == {"tollkeeper", f"tollkeeper-{VERSION}.dist-info"}
    scripts = {Path(file).name for file in installed_files(commands) if file.startswith("../")}
    assert scripts == {"tollkeeper"}


def test_every_module_and_script_is_brought(commands: Path) -> None:
    """What git knows of the rooms is in the wheel: code, and the scripts of the store."""
    listed = run("git", "-C", ROOT, "ls-files", "*.py", "*.lua", "*.pyi").stdout.split()
    ours = [file for file in listed if "/" in file and file.partition("/")[0] not in {"tests", "benchmarks"}]
    wanted = {file if file.startswith("tollkeeper/") else f"tollkeeper/rooms/{file}" for file in ours}
    assert any(file.endswith("take.lua") for file in wanted)
    assert wanted <= installed_files(commands)


def test_others_packages_of_the_rooms_names_are_in_nobodys_way(commands: Path) -> None:
    """A package ``ratelimit`` of somebody else's is not taken for ours, nor ours for theirs."""
    foreign = site_packages(commands) / "ratelimit"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("THEIRS = True\n")
    shown = run(commands / "tollkeeper", "gate", "--help")
    assert "Usage: tollkeeper gate" in shown.stdout, shown.stderr
    theirs = run(commands / "python", "-c", "import ratelimit, tollkeeper; print(ratelimit.THEIRS)")
    assert theirs.stdout == "True\n", theirs.stderr


@pytest.fixture(scope="module")
def machine(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpMachine]:
    """``tollkeeper up`` from there."""
    folder = tmp_path_factory.mktemp("up")
    with up_machine(folder / "state", program=[str(commands / "tollkeeper")], cwd=folder) as machine:
        yield machine


def test_up_runs_from_there(machine: UpMachine, commands: Path) -> None:
    """Every process is one of the environment's, and the printed call is answered."""
    for command in machine.children.values():
        assert command.startswith(str(commands.parent)), command
    answered = machine.pasted("A call that is answered 200:")
    assert "200 OK" in answered.stdout, answered.stdout + answered.stderr


def test_pipx_installs_the_command(tmp_path: Path, constraints: Path) -> None:
    """``pipx install .`` gives the command ``tollkeeper``."""
    pipx = made(tmp_path / "tool", "pipx", constraints=constraints) / "pipx"
    homes = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    installed = run(pipx, "install", "--python", sys.executable, ROOT, PIP_CONSTRAINT=str(constraints), **homes)
    assert installed.returncode == 0, installed.stderr
    said = run(tmp_path / "bin/tollkeeper", "--version")
    assert said.stdout == f"tollkeeper, version {VERSION}\n", said.stderr
