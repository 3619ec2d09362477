"""What the Dockerfile does to build the image, done in a folder: for a machine without an engine.

COPY and RUN of the stage ``build`` are carried out with ``/opt/tollkeeper`` and ``/build`` moved below a folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOVED = ("/opt/tollkeeper", "/build")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A line of the Dockerfile, continued lines joined."""

    name: str
    rest: str


def instructions() -> Iterator[Instruction]:
    """Read the Dockerfile."""
    kept = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        yield Instruction(name, rest)


def build_stage() -> list[Instruction]:
    """Return what stands between the stage's FROM and the next one."""
    every = list(instructions())
    begins = [number for number, one in enumerate(every) if one.name == "FROM"]
    at = next(index for index, number in enumerate(begins) if every[number].rest.endswith(" AS build"))
    return every[begins[at] + 1 : begins[at + 1]]


def _default_of(argument: str) -> str:
    """What an ARG before the first FROM gives."""
    named = (one.rest.partition("=") for one in instructions() if one.name == "ARG")
    return next(value for name, _, value in named if name == argument and value)


class Builder:
    """Carries out the steps below ``folder`` with ``python`` as the base image's; ``arguments`` are --build-arg's."""

    def __init__(self, folder: Path, python: str, **arguments: str) -> None:
        self._arguments = arguments
        self.home = folder / "opt/tollkeeper"
        self._folder = folder
        self._work = folder
        base = folder / "base"
        base.mkdir()
        (base / "python").symlink_to(python)
        clean = {"PATH": f"{base}:/usr/bin:/bin", "HOME": str(folder / "nowhere"), "LANG": "C.UTF-8"}
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "https_"))}
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # what is compiled is kept there
        self._environment = {**kept, **clean, "XDG_CACHE_HOME": cache}

    def build(self) -> None:
        """Do every step."""
        for step in build_stage():
            match step.name:
                case "WORKDIR":
                    self._work = Path(self._moved(step.rest))
                    self._work.mkdir(parents=True)
                case "ARG":
                    self._environment[step.rest] = self._arguments.get(step.rest) or _default_of(step.rest)
                case "COPY":
                    *sources, target = step.rest.split()
                    for source in sources:
                        self._copy(source, target)
                case "RUN":
                    self._run(self._moved(step.rest).replace("--no-cache-dir", ""))
                case other:
                    raise AssertionError(f"a step that is not known here: {other}")

    def _moved(self, text: str) -> str:
        for path in MOVED:
            text = text.replace(path, f"{self._folder}{path}")
        return text

    def _copy(self, source: str, target: str) -> None:
        given, wanted = ROOT / source, self._work / target
        if given.is_dir():
            shutil.copytree(given, wanted, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            (wanted if target.endswith("/") else wanted.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy(given, wanted / given.name if target.endswith("/") else wanted)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self._work,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
