"""Ports of ``tollkeeper up`` that another program takes between the plan and the start: it is sent no secret."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from upmachine import LAST_LINE, ROOT, START_S, STOP_S, environment, processes_logging_to, until, up_command

from tests.e2e.proxy import short_folder
from tollkeeper.up.ports import free_port

pytestmark = pytest.mark.timeout(180)


class _Thief(BaseHTTPRequestHandler):
    """Answers everything as one would who wants to be taken for the admin, and keeps what came."""

    heard: list[bytes]

    def do_GET(self) -> None:
        """Keep and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.heard.append(self.requestline.encode() + bytes(self.headers) + body)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815  the library's name

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def thief(port: int) -> Iterator[list[bytes]]:
    """Listen at a port of the machine; yields the requests that came."""
    heard: list[bytes] = []
    handler = type("_Hearing", (_Thief,), {"heard": heard})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def starting(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a machine and do not wait for it; yields it and what it prints."""
    output = folder / "output"
    with (
        output.open("wb") as written,
        subprocess.Popen(
            up_command(folder / "state", *options),
            cwd=ROOT,
            env=environment(TOLLKEEPER_ADMIN_PASSWORD="a-long-password"),
            stdout=written,
            stderr=written,
        ) as process,
    ):
        try:
            yield process, output
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_S)


@pytest.mark.parametrize("option", ["--admin-port", "--admin-metrics-port"])
def test_who_took_a_port_meanwhile_is_sent_no_password(option: str) -> None:
    """One sentence that names the port; nothing is left running, and the program that took it heard no credential."""
    port = free_port(set())
    with short_folder() as folder, starting(folder, option, str(port)) as (process, output):
        assert until((folder / "state/logs/gate.log").exists, START_S), output.read_text()
        with thief(port) as heard:
            assert process.wait(START_S) == 1
        assert not any(b"password" in one or b"uthorization" in one for one in heard), heard
        sentence = f"port {port} was taken meanwhile by another program; start again, or name another port"
        assert output.read_text().splitlines()[-1] == f"Error: tollkeeper up: {sentence}"
        assert not processes_logging_to(folder)


def test_a_port_of_our_choice_is_chosen_again() -> None:
    """Where 0 was asked the machine comes up at another port, and the keys of its first calls reach nobody else."""
    with short_folder() as folder, starting(folder) as (process, output):
        bootstrap = folder / "state/envoy/bootstrap.json"
        assert until(bootstrap.exists, START_S), output.read_text()
        listeners = json.loads(bootstrap.read_text())["static_resources"]["listeners"]
        (port,) = {one["address"]["socket_address"]["port_value"] for one in listeners if one["name"] == "http"}
        with thief(port) as heard:
            assert until(lambda: LAST_LINE in output.read_text() or process.poll() is not None, START_S)
            up = json.loads((folder / "state/up.json").read_text())
            assert not up["gateway_url"].endswith(f":{port}")
            assert requests.get(up["gateway_url"], timeout=10).status_code in {401, 404}
        assert not heard
        assert f"port {port} was taken meanwhile by another program; starting with others." in output.read_text()
