"""The standard gRPC health service beside Check, and a gate process that is told to go."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import pytest
import requests
from gatebench import Asker, Wire, make_gate, question, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets, create_secrets
from extauth.edge import CHECK_PATH
from gate.assembly import Gate
from protos.health_pb2 import HealthCheckRequest, HealthCheckResponse
from ratelimit.service.edge import RATE_LIMIT_PATH
from runtime.grpc.health import HEALTH_PATH

CHECK = "envoy.service.auth.v3.Authorization"
RATE_LIMIT = "envoy.service.ratelimit.v3.RateLimitService"


def health(target: str, service: str = "") -> int:
    """Ask as a load balancer does."""
    with grpc.insecure_channel(target) as channel:
        raw = channel.unary_unary(HEALTH_PATH)(HealthCheckRequest(service=service).SerializeToString(), timeout=10)
    return HealthCheckResponse.FromString(raw).status


def call(target: str, path: str) -> grpc.StatusCode:
    """Ask a service an empty question; how gRPC answers."""
    with grpc.insecure_channel(target) as channel:
        try:
            channel.unary_unary(path)(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_health_follows_readiness(gate: Gate) -> None:
    """SERVING as a whole and for both services, unknown for anything else, NOT_SERVING once the gate drains."""
    assert health(gate.address) == HealthCheckResponse.SERVING
    assert health(gate.address, CHECK) == HealthCheckResponse.SERVING
    assert health(gate.address, RATE_LIMIT) == HealthCheckResponse.SERVING
    assert health(gate.address, "nobody.Service") == HealthCheckResponse.SERVICE_UNKNOWN
    gate.drain()
    assert health(gate.address) == HealthCheckResponse.NOT_SERVING


OF_NOTHING = {CHECK: grpc.StatusCode.OK, RATE_LIMIT: grpc.StatusCode.INVALID_ARGUMENT}
"""What each service answers to an empty question."""


def test_a_gate_says_which_form_it_runs(gate: Gate, pytestconfig: pytest.Config) -> None:
    """The one that the tests were told that they run on: sources, or compiled."""
    assert gate.readiness().facts["compiled"] is pytestconfig.getoption("--compiled")


@pytest.mark.parametrize(("serves", "left_out"), [("check", RATE_LIMIT), ("ratelimit", CHECK)])
def test_a_service_that_is_left_out_is_not_there(
    redis_url: str, secrets: Secrets, registry: CollectorRegistry, wire: Wire, serves: str, left_out: str
) -> None:
    """UNIMPLEMENTED, and health knows nothing of it; the other one answers, were it that nothing was asked."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        gate = make_gate(wire.target(folder), redis_url, secrets, registry, wire=wire, serves=(serves,))
        gate.start()
        try:
            wait_until(lambda: gate.readiness().ready)
            (served,) = {CHECK, RATE_LIMIT} - {left_out}
            assert health(gate.address, served) == HealthCheckResponse.SERVING
            assert health(gate.address, left_out) == HealthCheckResponse.SERVICE_UNKNOWN
            codes = {path.split("/")[1]: call(gate.address, path) for path in (CHECK_PATH, RATE_LIMIT_PATH)}
            assert codes == {served: OF_NOTHING[served], left_out: grpc.StatusCode.UNIMPLEMENTED}
        finally:
            gate.stop()


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
