"""What a build server runs: a step that fails or hangs is named, and whatever still runs ends with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("curl", "jq", "node", "npm", "cc", "ip", "unshare", "h2load")
BUILDS = ("tests/clients/build.sh", "tests/gateway/build.sh", "tests/kube/build.sh", "benchmarks/peers.sh")

Run = Callable[..., "subprocess.Popen[str]"]


def _program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Start the script in a tree whose steps and builds are stubs: ``make`` does as is said, a build waits."""

    def start(does: str, **minutes: str) -> subprocess.Popen[str]:
        script = (ROOT / ".ci/run").read_text()
        for name, given in minutes.items():
            script = re.sub(rf"^step \d+ make {name}\b", f"step {given} make {name}", script, flags=re.MULTILINE)
        _program(tmp_path / ".ci/run", "")
        (tmp_path / ".ci/run").write_text(script)
        for build in BUILDS:
            _program(tmp_path / build, "echo $$ >>builds; exec sleep 60")
        _program(tmp_path / "bin/make", f'case $1 in\n{does}\nesac\necho "$1 is done"')
        for name in NEEDED:
            _program(tmp_path / "bin" / name, "")
        environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        return subprocess.Popen(
            [str(shutil.which("bash")), tmp_path / ".ci/run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    return start


def _ended(process: subprocess.Popen[str]) -> list[str]:
    with process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    return told.splitlines()


def _is_gone(file: Path) -> bool:
    """Whether the process that wrote its number here has ended, or does soon."""
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{file.read_text().split()[0]}").exists():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def test_a_step_that_fails_is_told_with_its_last_words(run: Run, tmp_path: Path) -> None:
    """After what the others took; later steps are not begun, and no build goes on."""
    told = _ended(run('test) until [ -e builds ]; do sleep 0.02; done; echo "1 failed, 3 passed"; exit 2;;'))
    assert re.fullmatch(r"test +\d+ s  FAILED \(2\): 1 failed, 3 passed", told[-1])
    assert {line.split()[0] for line in told[-3:-1]} == {"image-check", "fuzz-smoke"}
    assert "e2e-gateway" not in "\n".join(told)
    assert _is_gone(tmp_path / "builds")


def test_a_step_that_hangs_ends_in_its_time(run: Run, tmp_path: Path) -> None:
    """With all that it has started, and by its name."""
    told = _ended(run(f"test) (echo $$ >{tmp_path}/hung; sleep 60);;", test="0.03"))
    assert re.fullmatch(r"test +\d+ s  HUNG: ended after 0\.03 minutes: ?", told[-1])
    assert _is_gone(tmp_path / "hung")
    assert _is_gone(tmp_path / "builds")


def test_whoever_ends_it_ends_its_steps(run: Run, tmp_path: Path) -> None:
    """Also the one that runs beside another."""
    process = run(f"image-check) echo $$ >{tmp_path}/beside; exec sleep 60;; fuzz-smoke) exec sleep 60;;")
    while not all((tmp_path / name).exists() for name in ("beside", "builds")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _ended(process)
    assert _is_gone(tmp_path / "beside")
    assert _is_gone(tmp_path / "builds")
