"""What a server wants with each call is nowhere on the machine but in the one file that Envoy reads."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
import requests
from upclient import Operator
from upmachine import UpMachine, until, up_machine

from tests.e2e.proxy import short_folder
from tests.e2e.test_key_texts_nowhere import on_disk, stored, told

pytestmark = pytest.mark.timeout(180)

HOST = "api.router.inference-in-a-box"
TEXTS = ("sk-first-find-me-nowhere", "sk-second-find-me-nowhere")


class Locked(http.server.BaseHTTPRequestHandler):
    """A server of OpenAI's API that wants a key, as vLLM with ``--api-key``; it answers what it got."""

    def answers(self) -> None:
        """Answer a call."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        given = self.headers.get_all("authorization") or []
        is_let_in = given in ([f"Bearer {text}"] for text in TEXTS)
        body = json.dumps({"object": "list", "data": [{"id": "llm"}], "got": len(given)} if is_let_in else {}).encode()
        self.send_response(200 if is_let_in else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answers  # noqa: N815  the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def locked() -> Iterator[str]:
    """Such a server, by its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever, name="locked")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(20)


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """A machine of this file's own, which writes as many logs as it can."""
    options = {"TOLLKEEPER_ADMIN_PASSWORD": "password", "TOLLKEEPER_LOG_LEVEL": "debug"}
    with short_folder() as folder, up_machine(folder / "state", **options) as made:
        yield made


def betrayals(machine: UpMachine) -> list[str]:
    """The places that have a text, as it is or as a part of one."""
    with redis.Redis.from_url(machine.up["redis_url"]) as store:
        places = stored(store)
        store.save()
    places |= on_disk(machine.state) | told(machine) | {"printed": machine.printed.encode()}
    assert {"file valkey/dump.rdb", "file logs/admin.log", "file logs/envoy.log"} <= places.keys()
    return [name for name, content in places.items() if any(text.encode() in content for text in TEXTS)]


def test_registered_called_rotated_and_forgotten(machine: UpMachine) -> None:
    """Callers get through without ever having the key; it is in one file while it is published, and then in none."""
    operator = Operator(machine)
    operator.ask("POST", "/api/tenants", {"tenantId": "locked-team"})
    with locked() as url:
        auth = {"header": "authorization", "value": f"Bearer {TEXTS[0]}"}
        asked = {"name": "llm", "tenantId": "locked-team", "url": url}
        assert operator.must("POST", "/api/models", asked)["ready"] is False
        place = "/api/models/llm?tenantId=locked-team"
        assert operator.must("PATCH", place, {"upstreamAuth": auth})["ready"] is True
        path = "/api/models/llm/publish?tenantId=locked-team"
        made = operator.must("POST", path, {"config": {"tenantId": "locked-team"}})
        assert until(lambda: operator.must("GET", path)["status"] == "live")

        def call() -> requests.Response:
            gateway = machine.up["gateway_url"] + made["externalPath"]
            headers = {"Host": HOST, "Authorization": f"Bearer {made['apiKey']}"}
            return requests.post(f"{gateway}/chat/completions", json={"model": "llm"}, headers=headers, timeout=20)

        assert (call().status_code, call().json()["got"]) == (200, 1)
        (found,) = betrayals(machine)
        assert "upstream-auth/" in found
        operator.must("PATCH", place, {"upstreamAuth": auth | {"value": f"Bearer {TEXTS[1]}"}})
        assert until(lambda: operator.must("GET", path)["status"] == "live")
        assert call().status_code == 200
        (found,) = betrayals(machine)
        assert TEXTS[0].encode() not in on_disk(machine.state)[found]
        operator.must("DELETE", path)
        operator.must("DELETE", place)
        assert until(lambda: betrayals(machine) == [])
