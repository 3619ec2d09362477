"""The admin process itself: what it prints, when it is ready, how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from catalog.keys.secrets import create_secrets

ROOT = Path(__file__).parents[3]
LISTENING = re.compile(r"listening: (\S+)")
MADE = re.compile(r"the password (\S+) ")


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "tollkeeper", "admin", *options]


@pytest.fixture
def options(redis_url: str, tmp_path: Path) -> list[str]:
    """What every admin process is given."""
    create_secrets(tmp_path / "secrets.json")
    listen = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    return ["--redis-url", redis_url, "--secrets-file", str(tmp_path / "secrets.json"), *listen]


@contextmanager
def _admin(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run the process; gives it, where it listens, and what it said until then."""
    with subprocess.Popen(_command(*options), stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            said = ""
            assert process.stderr is not None
            while not (found := LISTENING.search(said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            yield process, f"http://{found[1]}", said
        finally:
            process.kill()


def _ask(url: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)  # noqa: S310  our own
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  our own
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_first_start_prints_a_password_that_works_and_later_ones_do_not(options: list[str]) -> None:
    """The made password is on stderr once; SIGTERM ends the process with 0; a given password replaces it."""
    with _admin(*options) as (process, url, said):
        made = MADE.search(said)
        assert made
        assert _ask(f"{url}/readyz")[0] == 200
        status, session = _ask(f"{url}/api/admin/login", {"username": "admin", "password": made[1]})
        assert (status, session["user"]["name"]) == (200, "admin")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with _admin(*options) as (_, url, said):
        assert "password" not in said
        assert _ask(f"{url}/api/admin/login", {"username": "admin", "password": made[1]})[0] == 200
    with _admin(*options, "--admin-password", "another one") as (_, url, said):
        assert "another one" not in said
        assert _ask(f"{url}/api/admin/login", {"username": "admin", "password": made[1]})[0] == 401
        assert _ask(f"{url}/api/admin/login", {"username": "admin", "password": "another one"})[0] == 200


def _refused(*options: str) -> tuple[int, str]:
    done = subprocess.run(_command(*options), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    return done.returncode, done.stderr


def test_what_the_operator_can_mend_is_one_sentence(options: list[str], tmp_path: Path) -> None:
    """A taken port, a store that is not there, a missing secrets file: exit 1, the option named, no traceback."""
    with _admin(*options) as (_, url, _said):
        taken = _refused(*options, "--listen", url.removeprefix("http://"))
    gone = _refused(*options, "--redis-url", f"unix://{tmp_path}/none.sock")
    unkept = _refused(*options, "--secrets-file", str(tmp_path / "none.json"))
    for (code, said), option in ((taken, "--listen"), (gone, "--redis-url"), (unkept, "secrets file")):
        assert code == 1
        assert option in said
        assert "Traceback" not in said


def test_every_mistake_in_the_settings_is_told_at_once() -> None:
    """All wrong options in one message, each with its variable and rule; a password is not shown."""
    wrong = {
        "--publish-to": "here",
        "--probe-url": "gateway:80",
        "--default-host": "10.0.0.1",
        "--probe-allow": "a_b",
        "--probe-refuse-ports": "1,99999",
        "--gateway-url": "ftp://x",
        "--admin-username": "a b",
    }
    code, said = _refused(*(word for pair in wrong.items() for word in pair), "--admin-password", "hunter2")
    assert code == 2
    for option in (*wrong, "--secrets-file"):
        assert option in said
    assert "hunter2" not in said


def test_publishing_to_a_folder_needs_its_envoy(options: list[str], tmp_path: Path) -> None:
    """A folder without the admin socket of the Envoy that watches it is refused."""
    code, said = _refused(*options, "--publish-to", f"files:{tmp_path}/published")
    assert (code, "--envoy-admin-socket" in said) == (2, True)


def test_another_admins_name_does_not_hide_the_one_before(options: list[str]) -> None:
    """A start that makes a second admin warns of the first; one whose user cannot act says who can."""
    with _admin(*options, "--admin-password", "first password"):
        pass
    with _admin(*options, "--admin-username", "ann", "--admin-password", "second password") as (_, _url, said):
        assert re.search(r"warning.*besides ann these are admins too: admin", said)
    with _admin(*options, "--admin-username", "nobody") as (_, _url, said):
        assert re.search(r"warning.*--admin-username nobody is no admin who can act.*; admin, ann can", said)


def _leads(said: str) -> bool:
    found = re.search(r"health and metrics: (\S+)", said)
    assert found, said
    with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=20) as answer:
        return "\ntollkeeper_publisher_leader 1.0\n" in answer.read().decode()


def _wait_until(holds: Callable[[], bool], patience_s: float = 30) -> None:
    deadline_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)  # another process's metrics have no event


def test_a_killed_publisher_is_replaced(options: list[str], tmp_path: Path) -> None:
    """Of two admins one publishes; killed without a word, it is replaced by the other when its lease has ended."""
    publishing = ("--publish-to", f"files:{tmp_path / 'envoy'}", "--envoy-admin-socket", str(tmp_path / "none.sock"))
    with _admin(*options, *publishing) as (first, _, of_first):
        _wait_until(lambda: _leads(of_first))
        with _admin(*options, *publishing) as (_, _, of_second):
            assert (_leads(of_first), _leads(of_second)) == (True, False)
            first.kill()
            _wait_until(lambda: _leads(of_second))
