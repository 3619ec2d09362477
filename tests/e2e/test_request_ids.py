"""A call is found by one id: in the answer, at Check, at the model's server and in Envoy's access log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upmachine import until

from protos.external_auth_pb2 import CheckRequest, CheckResponse
from tests.e2e.proxy import Envoy, Gate, Upstream, admitted, denied, options_for, publication, short_folder

FORGED = "00000000-0000-4000-8000-000000000000"


def _decide(request: CheckRequest) -> CheckResponse:
    """Admit and refuse as the gate does, metadata included."""
    if "x-api-key" in request.attributes.request.http.headers:
        answer = admitted({})
        answer.dynamic_metadata.update({"publication": "iris", "tenant": "tenant-a", "key": "0a1key"})
    else:
        answer = denied(401)
        answer.dynamic_metadata["reason"] = "key_missing"
    return answer


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[Envoy, Gate, Path]]:
    """An Envoy that keeps an access log, with its Check."""
    with short_folder() as folder, Upstream("up") as upstream, Gate(folder, answer=_decide) as gate:
        log = folder / "access.log"
        envoy = Envoy(options_for(folder, gate.target, access_log=str(log)))
        envoy.publish([publication("iris", "/models/iris", upstream.url)])
        with envoy:
            yield envoy, gate, log


def _lines(log: Path, count: int) -> list[dict[str, Any]]:
    assert until(lambda: log.exists() and log.read_text().count("\n") >= count, 30)  # Envoy flushes every 10 s
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_one_id_everywhere(parts: tuple[Envoy, Gate, Path]) -> None:
    """Envoy's own id, not the caller's; the log names publication, tenant and key, or the reason, and no secret."""
    envoy, gate, log = parts
    reply = envoy.get("/models/iris?token=hidden", f"x-request-id: {FORGED}", "x-api-key: tk_hidden")
    request_id = reply.headers["x-request-id"]
    assert request_id != FORGED
    assert gate.requests[-1].attributes.request.http.headers["x-request-id"] == request_id
    assert reply.upstream_headers("x-request-id") == [request_id]
    nobody = envoy.get("/models/iris")
    assert nobody.status == 401
    admitted, refused = _lines(log, 2)
    assert (admitted["request_id"], admitted["status"], admitted["route"]) == (request_id, 200, "iris/status")
    assert (admitted["publication"], admitted["key"]) == ("iris", "0a1key")
    assert (refused["request_id"], refused["status"]) == (nobody.headers["x-request-id"], 401)
    assert (refused["reason"], refused["details"]) == ("key_missing", "ext_authz_denied")
    assert "hidden" not in log.read_text()
