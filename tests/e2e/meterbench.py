"""A real Envoy between a server that sends any bytes and a gate that notes what it is told: metering, seen raw."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from envoy_data_plane.envoy.data.accesslog import v3 as upstream
from gatebench import wait_until

from catalog.records import TokenPolicy
from protos.access_log_pb2 import HTTPAccessLogEntry
from protos.external_auth_pb2 import CheckRequest, CheckResponse
from publisher.envoy.bootstrap import CLUSTERS_FILE
from publisher.envoy.clusters import clusters
from publisher.plan import plan
from ratelimit.tokens.meter import CHECK_NAMESPACE, USAGE_NAMESPACE
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


def in_words(entry: HTTPAccessLogEntry) -> dict[str, str]:
    """An entry of the access log as text; flags by the names that upstream has for them."""
    common, response = entry.common_properties, entry.response
    noted = common.metadata.filter_metadata
    flags = upstream.ResponseFlags.parse(common.response_flags.SerializeToString())
    usage = dict.fromkeys(("total", "prompt", "completion"), "-")
    usage |= {name: f"{value:g}" for name, value in dict(noted[USAGE_NAMESPACE]).items()}
    is_whole = common.HasField("time_to_last_downstream_tx_byte")
    return {
        **dict(noted[CHECK_NAMESPACE]),
        "status": str(response.response_code.value),
        "bytes": str(response.response_body_bytes),
        "details": response.response_code_details,
        "flags": ",".join(one.name for one in dataclasses.fields(flags) if getattr(flags, one.name)) or "-",
        "whole": str(common.time_to_last_downstream_tx_byte.ToMilliseconds()) if is_whole else "-",
        "duration": str(common.duration.ToMilliseconds()),
        **usage,
    }


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

    def entry(self) -> HTTPAccessLogEntry:
        """The entry of the one call that has ended since the last time."""
        wait_until(lambda: bool(self.gate.endings), PATIENCE_S)
        (told,) = self.gate.endings
        self.gate.endings.clear()
        return told

    def ended(self) -> dict[str, str]:
        """What it says, in words; ``-`` for what is not known."""
        return in_words(self.entry())

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
