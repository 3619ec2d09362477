"""The hot modules compiled by mypyc, where that is asked for: into a wheel, or into a folder of their own.

    TOLLKEEPER_COMPILED=1 pip wheel .          a wheel of this platform and Python; without it a pure one
    python hatch_build.py beside FOLDER        their extension modules below FOLDER, where the rooms stand already
    python hatch_build.py rooms FOLDER         the rooms with them, as in an image

Which modules is said in pyproject.toml, the hook's own table. They are compiled in a copy: a source tree never holds an
extension module, so none that is older than its source is ever imported from one. See
docs/decisions/0044-compiled-modules.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT: Final = Path(__file__).parent
ASKED: Final = "TOLLKEEPER_COMPILED"
GROUP: Final = "tollkeeper_hot"
"""Names the one library that all modules share, ``tollkeeper_hot__mypyc``; it stands where the rooms do."""
LOCK: Final = "requirements-build.lock"
KEPT_S: Final = 7 * 24 * 3_600
"""How long what was compiled of other sources is kept: several checkouts may be at work."""
_ABOVE: Final = {"admin", "publisher", "tollkeeper"}
"""Rooms that no compiled module imports (import-linter, and a test): what they say changes nothing of it."""
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+==[^ ;\\]+(?: ?;[^\\\n]+)?)", re.MULTILINE)
_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
group, out, *modules = sys.argv[1:]
extensions = mypycify(["--config-file=pyproject.toml", *modules], opt_level="2", group_name=group)
words = ["--quiet", "build_ext", "--build-lib", out, "--build-temp", "build"]
setup(name=group, packages=[], py_modules=[], ext_modules=extensions, script_args=words)
"""


def settings() -> dict[str, Any]:
    """What pyproject.toml says of the build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build: dict[str, Any] = project["tool"]["hatch"]["build"]
    return build


def modules() -> list[str]:
    """The files of the modules that are compiled."""
    listed: list[str] = settings()["targets"]["wheel"]["hooks"]["custom"]["compiled"]
    return listed


def rooms() -> list[str]:
    """The packages that the product is made of."""
    included: list[str] = settings()["only-include"]
    return included


def put_rooms(into: Path) -> None:
    """Copy the rooms, as they stand in an image."""
    for room in rooms():
        skipped = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
        shutil.copytree(ROOT / room, into / room, ignore=skipped, dirs_exist_ok=True)


def put_compiled(into: Path) -> list[Path]:
    """Put the extension modules below ``into`` as the rooms are below the root; where each stands.

    Compiled once for the same sources: kept in the user's cache, by the hash of all that goes into them.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollkeeper"
    home.mkdir(parents=True, exist_ok=True)
    kept = home / f"compiled-{_fingerprint()}"
    with kept.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # who comes second finds what the first has made
        if not kept.exists():
            _drop_old(home)
            with tempfile.TemporaryDirectory(dir=home, prefix="building-") as name:
                building = Path(name, "built")
                building.mkdir()  # with the mode of any folder: it is copied with it
                _compile(building)
                building.rename(kept)
        shutil.copytree(kept, into, dirs_exist_ok=True)
        return [into / made.relative_to(kept) for made in sorted(kept.rglob("*.so"))]


def _drop_old(home: Path) -> None:
    for old in [*home.glob("compiled-*"), *home.glob("building-*")]:  # the latter where one was killed
        if old.is_dir() and old.stat().st_mtime < time.time() - KEPT_S:
            shutil.rmtree(old)
            old.with_suffix(".lock").unlink(missing_ok=True)


def _compile(into: Path) -> None:
    """Compile in a copy. Needs mypy and a C compiler."""
    with tempfile.TemporaryDirectory(prefix="tk-compile-") as name:
        put_rooms(Path(name))
        shutil.copy(ROOT / "pyproject.toml", name)
        command = [sys.executable, "-c", _BUILD, GROUP, str(into.resolve()), *modules()]
        done = subprocess.run(  # noqa: S603  our own words
            command, cwd=name, capture_output=True, text=True, check=False
        )
    if done.returncode or len(list(into.rglob("*.so"))) != len(modules()) + 1:
        raise SystemExit(f"the modules could not be compiled:\n{done.stdout}{done.stderr}")


def _fingerprint() -> str:
    files = [
        path
        for room in set(rooms()) - _ABOVE
        for path in (ROOT / room).rglob("*.py*")
        if path.suffix in {".py", ".pyi"}
    ]
    files += [ROOT / name for name in ("hatch_build.py", LOCK)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    said = (sys.version, sysconfig.get_config_var("EXT_SUFFIX"), modules(), project["tool"]["mypy"])
    whole = hashlib.sha256(repr(said).encode())
    for path in sorted(files):
        whole.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def pinned() -> list[str]:
    """What compiling needs, in the versions of its lock, for an environment that pip makes."""
    return _PINNED.findall((ROOT / LOCK).read_text(encoding="utf-8"))


class CompiledWheel(BuildHookInterface[Any]):
    """Puts the compiled modules into a wheel, beside their sources, where that is asked for."""

    _folder = ""

    def dependencies(self) -> list[str]:
        """What pip installs to build this wheel."""
        return pinned() if _is_asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile."""
        if version == "editable" or not _is_asked():
            return
        self._folder = tempfile.mkdtemp(prefix="tk-wheel-")
        into = Path(self._folder)
        places = settings()["targets"]["wheel"]["sources"]
        inside = Path(next(iter(places.values()))).parent  # tollkeeper/rooms
        for made in put_compiled(into):
            build_data["force_include"][str(made)] = str(inside / made.relative_to(into))
        build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clean up."""
        del version, build_data, artifact_path
        if self._folder:
            shutil.rmtree(self._folder)


def _is_asked() -> bool:
    return os.environ.get(ASKED) == "1"


def main(words: list[str]) -> None:
    """Run."""
    match words:
        case ["beside", folder]:
            put_compiled(Path(folder))
        case ["rooms", folder]:
            put_compiled(Path(folder))
            put_rooms(Path(folder))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
