"""The golden files of Envoy Gateway's resources: ``make golden`` writes them anew, and a test holds them.

They show a reviewer what a change of the code changes for a gateway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from catalog.records import Server, UpstreamAuth
from publisher.gateway.options import GateTrust, GatewayOptions, HostInfrastructure, MeterBy, SecretRef
from publisher.gateway.resources.manifests import base, published, text
from publisher.plan import plan
from tests.e2e.proxy import kserve_v2, openai, publication, stripped

FOLDER: Final = Path(__file__).parent.parent / "golden"

_PUBLICATIONS: Final = (
    publication("000aaaaaaaaaaaaaaaa", "/models/iris", "http://iris.tenant-a.svc.cluster.local", model="iris"),
    kserve_v2("000bbbbbbbbbbbbbbbb", "/models/resnet", "https://resnet.test", model="resnet"),
    openai("000cccccccccccccccc", "/v1/models/llm", "http://llm.test:8000", model="llm"),
    openai("000dddddddddddddddd", "/chat", "http://llm.test:8000", model="llm", host="chat.test"),
    stripped("000eeeeeeeeeeeeeeee", "/models/other", "http://10.0.0.7:9000"),
    openai(
        "000ffffffffffffffff",
        "/v1/models/rolled",
        "http://old.test:8000",
        model="rolled",
        servers=(Server("http://old.test:8000", 9), Server("https://new.test", 1)),
    ),
    openai(
        "000ggggggggggggggg0",
        "/v1/models/locked",
        "https://locked.test",
        model="locked",
        upstream_auth=UpstreamAuth("authorization", secret="locked-credential"),
    ),
)

CASES: Final = {
    "standalone": GatewayOptions(
        gate=("unix:/run/tollkeeper/gate.sock",),
        endings=("unix:/run/tollkeeper/endings.sock",),
        listeners=("http", "https"),
        host=HostInfrastructure(
            envoy_version="1.40.0",
            http_port=8080,
            https_port=8443,
            certificates=(SecretRef(name="web"), SecretRef(name="other")),
        ),
        from_files=True,
    ),
    "cluster": GatewayOptions(
        gate=("gate-0.gates.default.svc:9001", "gate-1.gates.default.svc:9001"),
        gate_tls=GateTrust(name="gate.test", ca="gate-ca", client=SecretRef(name="gate-client", namespace="default")),
        per_publication_routes=True,
        origins=("https://app.example",),
        trusted_hops=1,
    ),
    "ai-gateway": GatewayOptions(
        gate=("unix:/run/tollkeeper/gate.sock",),
        meter=MeterBy.NONE,
        ai_gateway=True,
    ),
    "without-patches": GatewayOptions(
        gate=("unix:/run/tollkeeper/gate-0.sock", "unix:/run/tollkeeper/gate-1.sock"),
        patches=False,
        meter=MeterBy.POLICY,
        trusted_hops=1,
    ),
}
"""What is published on three gateways, by the names of their files."""


def made(case: str) -> str:
    """What a golden file should say."""
    options = CASES[case]
    return text((*base(options), *published(plan(_PUBLICATIONS), options)))


def path_of(case: str) -> Path:
    """A golden file."""
    return FOLDER / f"{case}.yaml"


if __name__ == "__main__":
    for name in CASES:
        path_of(name).write_text(made(name))
