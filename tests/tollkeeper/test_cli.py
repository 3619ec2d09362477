"""The command line: what there is, and how it refuses."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import redis

from catalog.keys.secrets import create_secrets
from runtime.version import VERSION
from tollkeeper.processes import PROCESSES

_ROOT = Path(__file__).parents[2]


def tollkeeper(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator would."""
    return subprocess.run(
        [sys.executable, "-m", "tollkeeper", *arguments],
        cwd=_ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_lists_the_processes() -> None:
    """``--help`` shows what there is, without importing it."""
    shown = tollkeeper("--help").stdout
    assert all(name in shown for name in ("gate", "admin", "up", "secrets"))


def test_help_imports_no_process() -> None:
    """The command starts quickly: Envoy, aiohttp and redis are loaded by the process that needs them."""
    script = "import sys; from tollkeeper.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"aiohttp", "redis", "envoy", "tollkeeper.gate.app", "tollkeeper.admin.app"} & set(loaded)


def test_the_version_is_the_projects() -> None:
    """One version everywhere."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert tollkeeper("--version").stdout == f"tollkeeper, version {VERSION}\n"


def test_secrets_init_writes_a_private_file_once(tmp_path: Path) -> None:
    """The file is 0600, holds all secrets, and is never overwritten."""
    path = tmp_path / "secrets.json"
    made = tollkeeper("secrets", "init", str(path))
    assert made.returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert {"peppers", "mac_keys", "jwt_key", "recovery_key"} <= json.loads(before).keys()
    again = tollkeeper("secrets", "init", str(path))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert path.read_text() == before


@pytest.mark.parametrize("name", PROCESSES)
def test_wrong_settings_are_refused_without_a_traceback(name: str) -> None:
    """Every process tells its mistakes and exits 2."""
    refused = tollkeeper(name, "--log-level", "loud", "--nonsense", "1")
    assert refused.returncode == 2
    assert "--log-level (TOLLKEEPER_LOG_LEVEL): must be" in refused.stderr
    assert "--nonsense: no such option" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_the_operator_can_mend_is_one_sentence(tmp_path: Path) -> None:
    """A missing secrets file is told, not traced."""
    refused = tollkeeper(
        "gate",
        "--secrets-file",
        str(tmp_path / "none"),
        "--listen",
        f"unix:{tmp_path}/g",
        "--http-listen",
        "127.0.0.1:0",
    )
    assert refused.returncode == 1
    assert "cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_damaged_admin_is_one_sentence(tmp_path: Path, redis_url: str, store: redis.Redis) -> None:
    """Of a start that gives the admin a password: it says how they are removed."""
    create_secrets(tmp_path / "secrets.json")
    store.set("tk:rec:user:admin", "{")
    options = ("--redis-url", redis_url, "--secrets-file", str(tmp_path / "secrets.json"), "--listen", "127.0.0.1:0")
    done = tollkeeper("admin", *options, "--http-listen", "127.0.0.1:0", TOLLKEEPER_ADMIN_PASSWORD="a good password")
    assert done.returncode == 1
    assert "user:admin: the stored record cannot be read; start with another --admin-username" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told() -> None:
    """The first line that an older Python runs says what is needed."""
    script = "import sys; sys.version_info = (3, 10, 1); import runpy; runpy.run_module('tollkeeper')"
    refused = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, "tollkeeper needs Python 3.11 or newer; this is 3.10\n")
