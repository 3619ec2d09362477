"""The environments of people's own clients: locked, installed once and whole, called with nothing of the caller's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import clients
import pytest
from clients import CannotInstallError, Family, ScriptError, client_family, families

BUILD = Path(__file__).parent / "clients/build.sh"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with nothing in it, and no index to ask."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        for name, value in {"XDG_CACHE_HOME": str(folder), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
            patch.setenv(name, value)
        yield folder / "tollkeeper/clients"


def made(name: str, folder: Path, lock: str = "", **scripts: str) -> Family:
    """Write a family down."""
    family = Family(name, folder)
    family.folder.mkdir()
    (family.folder / "requirements.lock").write_text(lock)
    for script, text in scripts.items():
        (family.folder / f"{script}.py").write_text(text)
    return family


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_lock_has_hashes_and_no_addresses(family: Family) -> None:
    """Whoever installs it gets the same bytes, from the index that is set up there."""
    text = family.lock.read_text()
    assert not re.search(r"https?://(?!opencollective|github\.com/sponsors)|--(extra-)?index-url|--find-links", text)
    if family.is_python:
        assert (family.folder / "requirements.in").exists()
        pinned = re.findall(
            r"^[A-Za-z0-9._-]+==[^ ;\n]+[^\n]*\\\n(?=    --hash=sha256:[0-9a-f]{64})", text, re.MULTILINE
        )
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) > 0
    else:
        packages = json.loads(text)["packages"]
        assert (
            packages.pop("")["dependencies"] == json.loads((family.folder / "package.json").read_text())["dependencies"]
        )
        assert packages
        assert all("integrity" in one and "resolved" not in one for one in packages.values())


def test_it_is_installed_once(tmp_path: Path) -> None:
    """The second time nothing is done; another lock is another environment."""
    family = made("once", tmp_path, tell="import sys; print('noise'); print('\"' + sys.argv[1] + '\"')")
    assert not family.is_installed
    family.install()
    made_ns = (family.home / "pyvenv.cfg").stat().st_mtime_ns
    family.install(timeout_s=0)
    assert (family.home / "pyvenv.cfg").stat().st_mtime_ns == made_ns
    assert family.run("tell.py", "said") == "said"
    before = family.home
    family.lock.write_text("# another\n")
    assert family.home != before
    assert not family.is_installed


def wheel(folder: Path, text: str) -> str:
    """Make a package ``locked`` that holds a text; its hash."""
    file = folder / "locked-1-py3-none-any.whl"
    information = {
        "METADATA": "Metadata-Version: 2.1\nName: locked\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(zipfile.ZipInfo("locked.py"), text)
        for name, told in information.items():
            packed.writestr(zipfile.ZipInfo(f"locked-1.dist-info/{name}"), told)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_not_as_locked_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes under the locked name are not installed; what was begun so is not used, nor in the next try's way."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    lock = f"locked==1 --hash=sha256:{wheel(tmp_path, 'TOLD = 1')}"
    wheel(tmp_path, "TOLD = 2")
    family = made("locked", tmp_path, lock, told="import locked; print(locked.TOLD)")
    with pytest.raises(CannotInstallError, match=r"locked: .*requirements\.lock:\n(.*\n)*.*DO NOT MATCH THE HASHES"):
        family.install()
    assert not family.is_installed
    (family.home / "left").touch()
    wheel(tmp_path, "TOLD = 1")
    family.install()
    assert family.is_installed
    assert not (family.home / "left").exists()
    assert family.run("told.py") == 1


def test_two_at_once_install_it_once(tmp_path: Path, cache: Path) -> None:
    """The second waits for the first, whose environment it finds."""
    family = made("twice", tmp_path)
    install = f"import clients, pathlib; clients.Family('twice', pathlib.Path({str(tmp_path)!r})).install()"
    command = [sys.executable, "-c", install]
    both = [subprocess.Popen(command, cwd=Path(clients.__file__).parent) for _ in range(2)]
    assert [one.wait(50) for one in both] == [0, 0]
    assert family.is_installed
    assert sorted(path.name for path in cache.glob("twice-*")) == [family.home.name, f"{family.home.name}.lock"]


def test_an_installer_that_hangs_ends_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has started, and says which family it was."""
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 60 & wait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    family = Family("slow", tmp_path)
    family.folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        (family.folder / name).write_text("{}")
    with pytest.raises(CannotInstallError, match=r"slow: .*npm ci(.*\n).*timed out after 0\.2"):
        family.install(timeout_s=0.2)
    assert not family.is_installed


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """An environment with no packages."""
    family = made(
        "plain",
        tmp_path_factory.mktemp("families"),
        environment="import json, os; print(json.dumps(dict(os.environ) | {'here': os.listdir(os.environ['HOME'])}))",
        silent="",
        failing="print('before'); raise SystemExit('why')",
        hanging="import subprocess; print('begun', flush=True); subprocess.run(['sleep', '60'])",
    )
    family.install()
    return family


def test_a_script_has_nothing_of_the_callers(installed: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no address and no settings file of whoever runs the tests."""
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    told = installed.run("environment.py", BASE="http://gateway")
    assert (told["BASE"], told["here"]) == ("http://gateway", [])
    assert told["HOME"] != os.environ["HOME"]
    assert told.keys() <= {"BASE", "here", "HOME", "LANG", "LC_CTYPE", "PATH", "PYTHONDONTWRITEBYTECODE"}


def test_a_script_that_fails_tells_why(installed: Family) -> None:
    """Its status and what it printed; one that tells nothing has failed."""
    with pytest.raises(ScriptError, match=r"plain/failing\.py ended with 1:\nbefore\nwhy"):
        installed.run("failing.py")
    with pytest.raises(ScriptError, match=r"plain/silent\.py told no JSON"):
        installed.run("silent.py")


def test_a_script_that_hangs_ends_in_its_time(installed: Family) -> None:
    """With what it has started, which holds its output open."""
    with pytest.raises(subprocess.TimeoutExpired, match="begun"):
        installed.run("hanging.py", timeout_s=1)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_test_without_its_packages_is_skipped_at_home_only(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Never on a build server; the words say what to do."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="make clients"):
        client_family("python")


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_what_cannot_be_had_fails_a_build_server_only(tmp_path: Path, ci: str, code: int) -> None:
    """Told in either case: here there is no npm."""
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    variables = os.environ | {"CI": ci, "PYTHON": sys.executable, "PATH": str(tmp_path)}
    done = subprocess.run([BUILD, "vercel"], env=variables, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == code, done.stderr
    assert "vercel: [Errno 2] No such file or directory: 'npm'\nIts tests cannot run." in done.stderr
    assert not Family("vercel").is_installed
