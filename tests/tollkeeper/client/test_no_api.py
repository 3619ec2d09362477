"""The command line meets servers that are no admin API, disks that are full and shells without a terminal.

Whatever happens, people read one sentence, and no key is lost.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollkeeper.cli import main
from tollkeeper.client import running
from tollkeeper.client.calling import Api, ApiError
from tollkeeper.client.session import Session, path_of, store

KEY = "tk_0a1aaaaaaaaaaaaaaaa_" + "x" * 52
NEVER = "2099-01-01T00:00:00Z"


class Server:
    """Answers each call by ``answer``, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b"{}"
        self.pause_s = 0.0
        self.asked: list[tuple[str, str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append((self.command, self.path, body))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                if not outer.pause_s:
                    self.wfile.write(outer.answer)
                for one in outer.answer if outer.pause_s else b"":
                    self.wfile.write(bytes([one]))
                    time.sleep(outer.pause_s)  # a server's slowness is what is tried

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  names of http.server

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is none of ours."""
    made = Server()
    yield made
    made.close()


Run = Callable[..., Result]


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Run:
    """Run the command line against it, by a token of the environment unless that is taken away."""

    def _run(*words: str, stdin: str = "", **variables: str | None) -> Result:
        clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("TOLLKEEPER_", "XDG_"))}
        mine = {"HOME": str(tmp_path), "TOLLKEEPER_URL": server.url, "TOLLKEEPER_TOKEN": "t"}
        return CliRunner().invoke(main, words, input=stdin, env={**clean, **mine, **variables})

    return _run


def refused(result: Result, code: int = 1) -> str:
    """See that a command ended by a sentence, and return it."""
    assert (result.exit_code, type(result.exception)) == (code, SystemExit), result
    return result.stderr


GARBAGE = [b"", b"{}", b"[]", b"null", b"<html>", b"\xff\xfe", b"1" * 5000, b"[" * 100_000, b'{"items": 1}']
GARBAGE += [b'{"items": ["a"]}', b'{"items": [], "damaged": 1}']


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda one: repr(one[:20]))
@pytest.mark.parametrize("status", [200, 302, 400, 500])
def test_a_list_of_no_admin_api_is_a_sentence(server: Server, run: Run, garbage: bytes, status: int) -> None:
    """Whatever comes, and by whatever status."""
    server.status, server.answer = status, garbage
    assert "is it an admin API" in refused(run("keys", "list"))


@pytest.mark.parametrize(
    "words",
    [
        *(("keys", "create", "--name", "n"), ("keys", "usage", "k"), ("keys", "find", "--text-file", "-")),
        ("login", "URL", "-u", "a", "--password-file", "-"),
    ],
    ids=lambda words: words[1],
)
@pytest.mark.parametrize("garbage", [b"[]", b'"x"', b"{}", b'{"token": 1, "apiKey": 1, "items": {}, "days": 1}'])
def test_so_is_what_lacks_what_is_needed(
    server: Server, run: Run, tmp_path: Path, garbage: bytes, words: tuple[str, ...]
) -> None:
    """An object without the field that the command is for; nothing is kept of it."""
    server.answer = garbage
    more = ("--key-file", str(tmp_path / "key")) if words[1] == "create" else ()
    result = run(*(server.url if word == "URL" else word for word in words), *more, stdin=f"{KEY}\n")
    assert "is it an admin API" in refused(result)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_terminal_would_obey_is_taken_out_of_errors(server: Server, run: Run) -> None:
    """Of a server's words, and of faults that are no objects."""
    server.status = 400
    server.answer = json.dumps({"code": "X", "detail": "\x1b[31m\x9bred", "errors": [1], "requestId": "\x07"}).encode()
    said = refused(run("keys", "list"))
    assert said == "Error:  [31m red (X, request  )\n"


def test_an_answer_that_never_ends_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its time, however often a byte comes, and by its size."""
    server.answer, server.pause_s = b" " * 200, 0.05
    began_s = time.monotonic()
    with Api(server.url, patience_s=0.3) as api, pytest.raises(ApiError, match="did not answer in time"):
        api.ask("GET", "/")
    assert time.monotonic() - began_s < 5
    server.answer, server.pause_s = b" " * 200, 0
    monkeypatch.setattr("tollkeeper.client.calling.MOST_BYTES", 100)
    with Api(server.url) as api, pytest.raises(ApiError, match="more than 100 bytes"):
        api.ask("GET", "/")


def test_a_proxy_does_not_see_what_stays_on_this_machine(server: Server, run: Run) -> None:
    """A password over http goes to this machine only, whatever the environment says of proxies."""
    server.answer = json.dumps({"token": "t", "expiresAt": NEVER, "user": {"role": "admin"}}).encode()
    proxy = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""}
    result = run("login", server.url, "-u", "a", "--password-file", "-", stdin="secret\n", **proxy)
    assert result.exit_code == 0, result
    assert [path for _, path, _ in server.asked] == ["/api/admin/login"]


def test_a_proxy_that_cannot_be_used_is_a_sentence(run: Run) -> None:
    """One of a kind that is not spoken."""
    said = refused(run("keys", "list", TOLLKEEPER_URL="https://a.example.com", ALL_PROXY="socks5://127.0.0.1:1"))
    assert "https://a.example.com cannot be asked" in said


def test_a_host_that_is_no_name_is_a_sentence(run: Run) -> None:
    """It is refused before it is asked for."""
    assert "cannot be" in refused(run("keys", "list", TOLLKEEPER_URL="http://a..b"))


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_step_of_a_path_is_no_name(server: Server, run: Run, name: str) -> None:
    """Clients take dots out of paths: ``tenants delete ..`` would be another call."""
    assert "must not be empty, . or .." in refused(run("tenants", "delete", "--yes", "--", name), 2)
    assert server.asked == []


def test_times_and_numbers_of_a_file_are_jsons(server: Server, run: Run, tmp_path: Path) -> None:
    """A time of YAML stays the word that it is; what JSON cannot say is refused."""
    server.answer = json.dumps({"apiKey": KEY}).encode()
    file = tmp_path / "key.yaml"
    file.write_text("name: n\nexpiresAt: 2027-01-01T00:00:00Z\n")
    assert run("keys", "create", "-f", str(file)).exit_code == 0
    assert json.loads(server.asked[0][2]) == {"name": "n", "expiresAt": "2027-01-01T00:00:00Z"}
    for bad in ("name: .nan", "name: !!binary eA==", "name: !!set {a}", "name: &a [*a]"):
        file.write_text(bad)
        assert "--file" in refused(run("keys", "create", "-f", str(file)), 2)
    assert len(server.asked) == 1


def test_a_key_that_cannot_be_written_is_shown(
    server: Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full after the key was made does not lose it, and leaves no half file."""
    server.answer = json.dumps({"apiKey": KEY}).encode()
    file = tmp_path / "a.key"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tollkeeper.client.secret_files.os.fsync", full)
        result = run("keys", "create", "--name", "n", "--key-file", str(file), "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["apiKey"]) == (0, KEY)
    assert "cannot be written: No space left" in result.stderr
    assert not file.exists()
    long = tmp_path / ("n" * 255)
    assert run("keys", "create", "--name", "n", "--key-file", str(long)).exit_code == 0
    assert (long.read_text(), stat.S_IMODE(long.stat().st_mode)) == (f"{KEY}\n", 0o600)
    assert "exists already" in refused(run("keys", "create", "--name", "n", "--key-file", str(long)), 2)
    assert [path.name for path in tmp_path.iterdir()] == [long.name]


def test_logging_out_forgets_the_session_that_was_used(server: Server, run: Run, tmp_path: Path) -> None:
    """A token of the environment, or another address, is not the stored session's."""
    path = path_of({"HOME": str(tmp_path)})
    store(Session(server.url, "mine", "ann", NEVER), path)
    server.answer = b""
    assert run("logout").exit_code == 0
    assert path.exists()
    assert "logged in at" in refused(run("logout", TOLLKEEPER_TOKEN=None, TOLLKEEPER_URL="https://b.example.com"))
    assert path.exists()
    server.status, server.answer = 500, b""
    assert "may live on" in refused(run("logout", TOLLKEEPER_TOKEN=None))
    assert not path.exists()
    store(Session(server.url, "mine", "ann", NEVER), path)
    server.status, server.answer = 401, b'{"code": "UNAUTHENTICATED"}'
    assert run("logout", TOLLKEEPER_TOKEN=None).stdout == "logged out\n"
    assert not path.exists()


def test_a_new_password_whose_session_cannot_be_kept_is_told(server: Server, run: Run, tmp_path: Path) -> None:
    """It is changed all the same."""
    path = path_of({"HOME": str(tmp_path)})
    store(Session(server.url, "mine", "ann", NEVER), path)
    server.answer = json.dumps({"token": "new", "expiresAt": NEVER}).encode()
    files = ("password", "--current-file", "-", "--new-file", "-")
    said = run(*files, stdin="a\nb\n").stdout
    assert "that of TOLLKEEPER_TOKEN too" in said
    assert json.loads(path.read_text())["token"] == "mine"
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    session = Session(server.url, "mine", "ann", NEVER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tollkeeper.client.session._read", lambda _path: session)
        said = refused(run(*files, stdin="a\nb\n", TOLLKEEPER_TOKEN=None))
    assert said.startswith("Error: the password is changed, and all sessions of yours have ended: ")


def test_damaged_keys_are_found_too(server: Server, run: Run) -> None:
    """With the call that removes them."""
    damaged: list[dict[str, Any]] = [{"id": "0a1", "damaged": True, "remove": "DELETE /api/keys/0a1"}]
    server.answer = json.dumps({"items": [], "damaged": damaged}).encode()
    words = ("keys", "find", "--text-file", "-")
    assert "damaged record 0a1: DELETE /api/keys/0a1" in run(*words, stdin="tk_0a1\n").stdout
    assert json.loads(run(*words, "-o", "json", stdin="tk_0a1\n").stdout) == damaged


CLOSED = [
    (("keys", "delete", "k"), 1, "Say --yes"),
    (("login", "http://127.0.0.1:1"), 2, "missing --username"),
    (("login", "http://127.0.0.1:1", "-u", "a"), 2, "asked for at a terminal"),
    (("login", "http://127.0.0.1:1", "-u", "a", "--password-file", "-"), 2, "standard input is closed"),
    (("keys", "create", "-f", "-"), 2, "standard input is closed"),
]


def test_a_closed_standard_input_is_a_sentence(tmp_path: Path) -> None:
    """As daemons start their children."""
    environment = {**os.environ, "HOME": str(tmp_path), "TOLLKEEPER_URL": "http://127.0.0.1:1", "TOLLKEEPER_TOKEN": "t"}
    for words, code, said in CLOSED:
        command = 'exec "$@" <&-'
        done = subprocess.run(
            ["bash", "-c", command, "bash", sys.executable, "-m", "tollkeeper", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, said in done.stderr) == (code, True), done
        assert "Traceback" not in done.stderr


def test_a_standard_output_of_few_letters_is_written_to(server: Server) -> None:
    """What it has no sign for is escaped, in a table and in JSON; lone surrogates are no end either."""
    server.answer = b'{"token": "tka_x_\xe2\x80\xa6", "name": "\\ud800"}'
    for form in ("table", "json", "yaml"):
        result = CliRunner(charset="latin-1").invoke(
            main, ["keys", "show", "k", "-o", form], env={"TOLLKEEPER_URL": server.url, "TOLLKEEPER_TOKEN": "t"}
        )
        assert result.exit_code == 0, result
        assert "tka_x_\\u2026" in result.output


def test_the_limit_of_a_file_is_held(run: Run, tmp_path: Path) -> None:
    """A character more than the API would take."""
    file = tmp_path / "long.yaml"
    file.write_text("name: n\n#" + "x" * running.MOST_FILE)
    assert "is longer than" in refused(run("keys", "create", "-f", str(file)), 2)
