"""The HTTPS listener of the real Envoy Gateway: the same routes, closed and metered as the other one."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from gatewayground import Ground

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
    assert curl(ground, f"/v1/models/llm/{answer}", http, "-H", ground.with_key, body=body)[0] == 200
    assert rig.settled() - before == 12


@pytest.mark.parametrize("http", HTTP)
def test_long_prompts_arrive_whole(ground: Ground, http: str) -> None:
    """Four megabytes."""
    body = json.dumps({"model": "echo", "prompt": "x" * (4 * 1024 * 1024 - 100)}).encode()
    status, _, text = curl(ground, "/v1/chat/completions", http, "-H", ground.with_key, body=body)
    assert (status, json.loads(text)["body_bytes"]) == (200, len(body))
