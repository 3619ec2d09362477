"""People's own packages, to call a gateway with: each family of ``tests/clients`` in an environment of its own.

A family is a folder with ``requirements.in`` and ``requirements.lock`` (Python) or ``package.json`` and
``package-lock.json`` (node), and scripts that do something with what is locked there and end with a line of JSON.
``make clients`` installs all of them, once, into ``${XDG_CACHE_HOME:-~/.cache}/tollkeeper/clients``; tests only use
what is there. As a program (the standard library only) this module installs the families that it is named, or all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FAMILIES: Final = Path(__file__).parents[1] / "clients"
INSTALL_S: Final = 540
CALL_S: Final = 60
_FORM: Final = 1  # of what is installed how: one more makes all of them anew


class CannotInstallError(Exception):
    """A family's packages could not be had; what the installer said."""


class ScriptError(AssertionError):
    """A client's script failed; what it said."""


@dataclass(frozen=True)
class Family:
    """Clients that are locked together."""

    name: str
    within: Path = FAMILIES

    @property
    def folder(self) -> Path:
        """Its locks and scripts."""
        return self.within / self.name

    @property
    def lock(self) -> Path:
        """What exactly is installed."""
        python, node = self.folder / "requirements.lock", self.folder / "package-lock.json"
        return python if python.exists() else node

    @property
    def is_python(self) -> bool:
        return self.lock.suffix == ".lock"

    @property
    def home(self) -> Path:
        """Where it is installed: another place for another lock, and for another Python."""
        runs_on = "python{}.{}".format(*sys.version_info) if self.is_python else "node"
        told = f"{_FORM} {runs_on}\n".encode() + self.lock.read_bytes()
        return cache() / f"{self.name}-{hashlib.sha256(told).hexdigest()[:12]}"

    @property
    def is_installed(self) -> bool:
        return self._proof.exists()

    @property
    def _proof(self) -> Path:
        return self.home / "installed"

    def program(self, name: str) -> Path:
        """A command that these packages bring."""
        return self.home / ("bin" if self.is_python else "node_modules/.bin") / name

    def install(self, *, timeout_s: float = INSTALL_S) -> None:
        """Install it unless it is; a second one that would waits for the first. What broke off is done anew."""
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / f"{self.home.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_installed:
                return
            shutil.rmtree(self.home, ignore_errors=True)
            for command in self._installing():
                self._do(command, timeout_s)
            unfinished = self._proof.with_suffix(".part")
            unfinished.write_text(self.lock.name)
            unfinished.rename(self._proof)

    def _installing(self) -> Iterator[list[str]]:
        if self.is_python:
            yield [sys.executable, "-m", "venv", str(self.home)]
            pip = [str(self.home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            yield [*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(self.lock)]
            return
        self.home.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.folder / name, self.home)
        yield ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]

    def _do(self, command: list[str], timeout_s: float) -> None:
        where = self.home if self.home.exists() else cache()
        try:
            done = _bounded(command, timeout_s=timeout_s, cwd=where)
        except (FileNotFoundError, subprocess.TimeoutExpired) as failed:
            raise CannotInstallError(f"{self.name}: {failed}") from failed
        if done.returncode:
            raise CannotInstallError(f"{self.name}: {' '.join(command)}:\n{done.stdout}{done.stderr}")

    def run(self, script: str, *arguments: str, timeout_s: float = CALL_S, **variables: str) -> Any:
        """Run a script of this family with these variables and few others; the JSON of the last line that it prints."""
        command = [*self._interpreter(script), *arguments]
        done = self.call(*command, timeout_s=timeout_s, stdin=self._told(script), **variables)
        if done.returncode:
            raise ScriptError(f"{self.name}/{script} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        try:
            return json.loads(done.stdout.strip().rpartition("\n")[2])
        except ValueError as odd:
            raise ScriptError(f"{self.name}/{script} told no JSON:\n{done.stdout}{done.stderr}") from odd

    def _interpreter(self, script: str) -> list[str]:
        if self.is_python:
            return [str(self.home / "bin/python"), str(self.folder / script)]
        return ["node", "--input-type=module", "-"]  # so that it finds the packages of where it runs

    def _told(self, script: str) -> str:
        return "" if self.is_python else (self.folder / script).read_text()

    def call(
        self, *command: str | Path, timeout_s: float = CALL_S, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command among the packages, with an empty home folder and none of the caller's settings."""
        with tempfile.TemporaryDirectory(prefix="tk-client-", ignore_cleanup_errors=True) as home:
            return _bounded(
                [str(word) for word in command],
                timeout_s=timeout_s,
                cwd=Path(home) if self.is_python else self.home,
                environment=_plain_environment(home) | variables,
                stdin=stdin,
            )


def _bounded(
    command: list[str], *, timeout_s: float, cwd: Path, environment: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends in its time, with all that it has started."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=cwd, env=environment, text=True, start_new_session=True, **pipes) as process:
        try:
            told, errors = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired as expired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            told, errors = process.communicate()
            raise subprocess.TimeoutExpired(f"{' '.join(command)}:\n{told}{errors}", timeout_s) from expired
        return subprocess.CompletedProcess(command, process.returncode, told, errors)


def _plain_environment(home: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}


def cache() -> Path:
    """Return the folder of all that is installed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollkeeper/clients"


def families(within: Path = FAMILIES) -> list[Family]:
    """Every family there is."""
    every = (Family(folder.name, within) for folder in sorted(within.iterdir()) if folder.is_dir())
    return [family for family in every if family.lock.exists()]


def client_family(name: str) -> Family:
    """A family to call with in a test: skipped where it is not installed, but for build servers."""
    import pytest  # noqa: PLC0415  this module also runs where there is none

    family = Family(name)
    if not family.is_installed:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"the packages of tests/clients/{name} are not installed: `make clients` does that")
    return family


def main(names: list[str]) -> int:
    """Install; on a laptop what cannot be had is told and skipped."""
    code, say = 0, sys.stderr.write
    for family in [Family(name) for name in names] or families():
        if not family.is_installed:
            say(f"installing the clients of tests/clients/{family.name} into {family.home}, once\n")
        try:
            family.install()
        except CannotInstallError as error:
            say(f"{error}\nIts tests cannot run.\n")
            code = 1
    return code if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
