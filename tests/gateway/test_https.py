"""The HTTPS listener of the real Envoy Gateway: the same routes, closed and metered as the other one."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess

import pytest
from gatewayground import Ground
from gatewaystack import LIVE_S, OTHER_HOST
from upmachine import until

from tests.e2e.metered import path_of
from tests.e2e.proxy import HOST, PATIENCE_S

pytestmark = pytest.mark.gateway

HTTP = ["--http1.1", "--http2"]
BODY = {"model": "llm", "max_tokens": 100}


def curl(ground: Ground, path: str, *options: str, body: bytes = b"") -> tuple[int, str, str]:
    """Call over TLS, trusting the test's authority alone; status, HTTP version and text."""
    if (program := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    port = ground.machine.ports["https"]
    command = [program, "-sS", "--max-time", str(PATIENCE_S), "-w", "\n%{http_code} %{http_version}", "-H", "expect:"]
    command += ["--cacert", str(ground.machine.authority.ca), "--resolve", f"{HOST}:{port}:127.0.0.1", *options]
    command += ["-H", "content-type: application/json", "--data-binary", "@-"] if body else []
    done = subprocess.run(
        [*command, f"https://{HOST}:{port}{path}"], input=body, capture_output=True, check=True, timeout=PATIENCE_S + 5
    )
    text, _, told = done.stdout.decode().rpartition("\n")
    status, version = told.split()
    return int(status), version, text


@pytest.mark.parametrize("http", HTTP)
def test_calls_pass_with_a_key_and_only_with_one(ground: Ground, http: str) -> None:
    """Over HTTP/1.1 and HTTP/2, by a certificate of a Secret."""
    key = ("-H", ground.with_key)
    assert curl(ground, "/models/iris", http)[0] == 401
    status, version, text = curl(ground, "/models/iris", http, *key)
    assert (status, json.loads(text)["upstream"]) == (200, "iris")
    assert version == {"--http1.1": "1.1", "--http2": "2"}[http]
    body = json.dumps({"model": "echo"}).encode()
    assert json.loads(curl(ground, "/v1/chat/completions", http, *key, body=body)[2])["upstream"] == "echo"


@pytest.mark.parametrize("http", HTTP)
@pytest.mark.parametrize("answer", ["json", "sse"])
def test_calls_are_settled(ground: Ground, http: str, answer: str) -> None:
    """The listener is metered by patches of its own: what a call costs is what it told."""
    rig = ground.metered()
    before = rig.settled()
    body = json.dumps(BODY).encode()
    assert curl(ground, path_of(answer), http, "-H", ground.with_key, body=body)[0] == 200
    assert rig.settled() - before == 12


@pytest.mark.parametrize("http", HTTP)
def test_long_prompts_arrive_whole(ground: Ground, http: str) -> None:
    """Four megabytes."""
    body = json.dumps({"model": "echo", "prompt": "x" * (4 * 1024 * 1024 - 100)}).encode()
    status, _, text = curl(ground, "/v1/chat/completions", http, "-H", ground.with_key, body=body)
    assert (status, json.loads(text)["body_bytes"]) == (200, len(body))


def shown(ground: Ground, name: str) -> bytes:
    """The certificate that a caller who asks for this name is shown and accepts."""
    context = ssl.create_default_context(cafile=str(ground.machine.authority.ca))
    address = ("127.0.0.1", ground.machine.ports["https"])
    with (
        socket.create_connection(address, timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def test_each_name_has_its_secret_and_a_renewed_one_is_shown(ground: Ground) -> None:
    """Two Secrets on one listener; both are renewed while it serves, no listener changes and no call fails."""
    machine = ground.machine
    names = (HOST, OTHER_HOST)
    before = [shown(ground, name) for name in names]
    assert before[0] != before[1]
    changed = machine.gateway.stat("listener_manager.listener_(modified|removed|added)$")
    machine.parts.write_operators_file(machine.gateway.manifests / "operators.yaml")
    statuses = set()

    def renewed() -> bool:
        statuses.add(curl(ground, "/models/iris", "--http1.1", "-H", ground.with_key)[0])
        return all(shown(ground, name) != old for name, old in zip(names, before, strict=True))

    assert until(renewed, LIVE_S)
    assert statuses == {200}
    assert machine.gateway.stat("listener_manager.listener_(modified|removed|added)$") == changed
