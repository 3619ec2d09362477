"""A real Envoy between a server that sends any bytes and a gate that notes what it is told: metering, seen raw."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from gatebench import wait_until

from catalog.records import TokenPolicy
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.envoy.bootstrap import CLUSTERS_FILE
from publisher.envoy.files import clusters
from publisher.plan import plan
from tests.e2e.metered import Answer, RawServer
from tests.e2e.proxy import (
    HOST,
    PATIENCE_S,
    Envoy,
    Gate,
    Reply,
    admitted,
    head,
    openai,
    options_for,
    request_fields,
    route_fields,
    short_folder,
    stripped,
)

RESERVATION = "0a1f00d"
PATH = "/v1/models/llm"
CLOSED = "/v1/models/closed"  # nobody listens there
LOST = "/v1/models/lost"  # Envoy has its routes and knows no server for them
PLAIN = "/models/plain"
BODY = b'{"model":"llm"}'


def reserving(request: CheckRequest) -> CheckResponse:
    """Admit with a reservation where a body was read, as the product's gate does."""
    answer = admitted({})
    told = {"publication": route_fields(request).get("publication", "")}
    answer.dynamic_metadata.update(told | ({"reservation": RESERVATION} if request_fields(request) else {}))
    return answer


@dataclass
class Bench:
    """All parts."""

    envoy: Envoy
    gate: Gate
    server: RawServer

    def begin(self, name: str, body: bytes = BODY, *headers: str, path: str = PATH) -> bytes:
        """The bytes of a call for the answer of this name; JSON of a known length unless headers say otherwise."""
        said = headers or ("content-type: application/json", f"content-length: {len(body)}")
        return head("POST", f"{path}/{name}", f"host: {HOST}", *said) + body

    def call(self, name: str, body: bytes = BODY, *headers: str, path: str = PATH) -> Reply:
        """Call for the answer of this name."""
        return self.envoy.send(self.begin(name, body, *headers, path=path))

    def leave(self, name: str, after: bytes) -> None:
        """Call for an answer, and go once these bytes were seen."""
        seen_before = self.server.seen
        with self.envoy.connect() as connection:
            connection.sendall(self.begin(name))
            wait_until(lambda: self.server.seen > seen_before)
            seen = b""
            while after not in seen:
                seen += connection.recv(65_536)

    def ended(self) -> dict[str, str]:
        """What was told of the one call that has ended since the last time."""
        wait_until(lambda: bool(self.gate.endings), PATIENCE_S)
        (told,) = self.gate.endings
        self.gate.endings.clear()
        (descriptor,) = told.descriptors
        assert told.domain == "tollkeeper"
        return {entry.key: entry.value for entry in descriptor.entries}

    def told_nobody(self) -> bool:
        """Whether none of the calls before was told: one that is told comes after them."""
        self.call("json")
        return self.ended()["total"] == "12" and not self.gate.endings

    def checked(self) -> dict[str, Any]:
        """What Check was told of the last body."""
        return request_fields(self.gate.requests[-1])

    def curl(self, name: str, *options: str, body: bytes = BODY) -> subprocess.CompletedProcess[bytes]:
        """A call by curl, for what needs HTTP/2."""
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("curl is not installed")
        url = f"http://127.0.0.1:{self.envoy.ports['http']}{PATH}/{name}"
        said = ("-H", f"host: {HOST}", "-H", "content-type: application/json", "-H", "expect:")
        return subprocess.run(
            [curl, "-sS", "--no-buffer", *options, *said, "--data-binary", "@-", url],
            input=body,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )


@contextmanager
def meterbench(answers: dict[str, Answer], *, longest_s: int = 600, **options: Any) -> Iterator[Bench]:
    """Put the parts together: the model's publication, a traditional one, and two whose servers cannot be reached."""
    with short_folder() as folder, Gate(folder) as gate, RawServer() as server, ExitStack() as stack:
        gate.answer = reserving
        server.answers = answers
        envoy = Envoy(options_for(folder, gate.target, **options))
        tokens = TokenPolicy(reservation_timeout_s=longest_s)
        served = [
            openai("llm", PATH, server.url, tokens=tokens),
            openai("closed", CLOSED),
            stripped("plain", PLAIN, server.url),
        ]
        envoy.publish([*served, openai("lost", LOST)])
        (folder / CLUSTERS_FILE).write_text(clusters(plan(served), upstream_ca="").text())
        stack.enter_context(envoy)
        yield Bench(envoy, gate, server)


def as_json(**fields: Any) -> bytes:
    """A call's body."""
    return json.dumps({"model": "llm"} | fields).encode()
