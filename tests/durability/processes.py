"""The product's own processes as operators start them, a gate in this one, and a model server for them to ask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate.links import StoreUrls
from tests.support.gatebench import make_gate, wait_until

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 60
_LISTENING: Final = re.compile(r"listening: (\S.*)")


@contextmanager
def process(log: Path, *words: str) -> Iterator[str]:
    """Run ``tollkeeper WORDS``; gives what it said of where it listens. It is killed at the end."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "tollkeeper", *words], cwd=ROOT, stdout=output, stderr=output
        ) as running,
    ):
        try:
            yield _await_listening(running, log)
        finally:
            running.kill()


def _await_listening(running: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + START_S
    while not (found := _LISTENING.search(log.read_text())):
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.02)  # a process tells by its log
    return found[1].strip('"}')


class _Ready(BaseHTTPRequestHandler):
    """Has every model of KServe's first protocol."""

    def do_GET(self) -> None:
        body = json.dumps({"name": self.path.rpartition("/")[2], "ready": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def model_server() -> Iterator[str]:
    """A server of models that are ready; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever, name="model-server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def deaf_gate(target: str, urls: StoreUrls, secrets: Secrets) -> Iterator[str]:
    """A gate in this process that hears of no change: only the fence protects it. Where it listens."""
    gate = make_gate(target, urls, secrets, CollectorRegistry())
    gate.start()
    try:
        wait_until(lambda: gate.readiness().ready)
        gate._follower.stop(5)
        yield gate.address
    finally:
        gate.stop()
