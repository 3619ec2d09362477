"""The standard gRPC health service beside Check, and a gate process that is told to go."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import grpc
import requests
from gatebench import Asker, question, wait_until

from catalog.secrets import create_secrets
from extauth.gate import CHECK_SERVICE, Gate
from protos.health_pb2 import HealthCheckRequest, HealthCheckResponse
from runtime.grpc_health import HEALTH_PATH


def health(target: str, service: str = "") -> int:
    """Ask as a load balancer does."""
    with grpc.insecure_channel(target) as channel:
        raw = channel.unary_unary(HEALTH_PATH)(HealthCheckRequest(service=service).SerializeToString(), timeout=10)
    return HealthCheckResponse.FromString(raw).status


def test_health_follows_readiness(gate: Gate) -> None:
    """SERVING as a whole and for Check, unknown for anything else, NOT_SERVING once the gate drains."""
    assert health(gate.address) == HealthCheckResponse.SERVING
    assert health(gate.address, CHECK_SERVICE) == HealthCheckResponse.SERVING
    assert health(gate.address, "nobody.Service") == HealthCheckResponse.SERVICE_UNKNOWN
    gate.drain()
    assert health(gate.address) == HealthCheckResponse.NOT_SERVING


def test_a_gate_told_to_go_turns_unready_first_and_still_answers(redis_url: str, tmp_path: Path) -> None:
    """SIGTERM: readiness goes at once, calls are answered while load balancers notice, then it ends by itself."""
    create_secrets(tmp_path / "secrets.json")
    target = f"unix:{tmp_path}/g.sock"
    command = [sys.executable, "-m", "tollkeeper", "gate", "--redis-url", redis_url, "--listen", target]
    command += ["--http-listen", "127.0.0.1:0", "--secrets-file", str(tmp_path / "secrets.json"), "--drain-s", "3"]
    log = tmp_path / "log"
    with log.open("wb") as said, subprocess.Popen(command, stderr=said) as process:
        try:
            wait_until(lambda: "http 127.0.0.1:" in log.read_text(), timeout_s=30)
            url = "http://127.0.0.1:" + log.read_text().split("http 127.0.0.1:")[1].split()[0]
            wait_until(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 200)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 503)
            assert health(target) == HealthCheckResponse.NOT_SERVING
            asker = Asker(target)
            assert asker.ask(question()).denied_response.status.code == 404
            asker.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
