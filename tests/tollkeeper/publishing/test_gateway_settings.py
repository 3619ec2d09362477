"""The settings of publishing to Envoy Gateway: what goes together, what is refused, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.gateway.options import GateTrust, GatewayOptions, HostInfrastructure, MeterBy, SecretRef
from runtime.lifecycle import CannotStart
from runtime.settings import BadSettings, as_text, read
from tollkeeper.admin.app import AdminSettings
from tollkeeper.publishing.sinks import folder_sink

ADMIN = {"secrets_file": "/run/secrets.json"}
GATEWAY = {"probe_url": "http://gateway:80", "gate_targets": "unix:/g.sock"}
FOLDER = {**ADMIN, **GATEWAY, "publish_to": "folder:/run/gateway"}
FILES = {**ADMIN, "publish_to": "files:/run/envoy", "envoy_admin_socket": "/run/envoy.sock"}
TLS = {"gate_targets": "gate.test:9001", "gate_tls_name": "gate.test", "gate_tls_ca": "gate-ca"}
MACHINE = {"envoy_version": "1.39.1", "gateway_http_port": "8080", "endings_targets": "unix:/e.sock"}
HTTPS = {"gateway_https_port": "8443", "gateway_certificate": "certs/web,other", "gateway_listeners": "http,https"}


def options(**fields: str) -> GatewayOptions:
    """What the settings come to for a folder."""
    return read(AdminSettings, FOLDER | fields).options(from_files=True, per_publication_routes=False)


def test_a_folder_needs_a_gate_and_a_listener() -> None:
    """The rest has defaults, those of the builder."""
    assert options() == GatewayOptions(gate=("unix:/g.sock",), from_files=True)


def test_everything_that_is_set_reaches_the_builder() -> None:
    """And the same settings as text give the same."""
    given = {
        **TLS,
        **MACHINE,
        **HTTPS,
        "endings_targets": "gate.test:9101",
        "gate_tls_client": "gate-client",
        "gateway_namespace": "gateways",
        "gateway_name": "models",
        "patches": "false",
        "check_timeout_ms": "500",
        "max_body_mib": "8",
        "trusted_hops": "1",
        "cors_origins": "https://app.example",
        "gateway_meter": "policy",
    }
    made = options(**given)
    assert (made.gate, made.endings) == (("gate.test:9001",), ("gate.test:9101",))
    assert made.gate_tls == GateTrust(name="gate.test", ca="gate-ca", client=SecretRef(name="gate-client"))
    assert (made.namespace, made.gateway, made.listeners) == ("gateways", "models", ("http", "https"))
    certificates = (SecretRef(name="web", namespace="certs"), SecretRef(name="other"))
    assert made.host == HostInfrastructure(
        envoy_version="1.39.1", http_port=8080, https_port=8443, certificates=certificates
    )
    assert (made.patches, made.check_timeout_ms, made.max_body_bytes, made.trusted_hops) == (False, 500, 2**23, 1)
    assert made.origins == ("https://app.example",)
    assert made.meter is MeterBy.POLICY
    settings = read(AdminSettings, FOLDER | given)
    assert read(AdminSettings, as_text(settings)) == settings


@pytest.mark.parametrize(
    ("given", "option", "rule"),
    [
        ({"publish_to": "folder:"}, "--publish-to", "must be files:DIR, folder:DIR or cluster"),
        ({"probe_url": ""}, "--probe-url", "is required where --publish-to names a folder"),
        ({"probe_url": "gateway:80"}, "--probe-url", ""),
        ({"gate_targets": ""}, "--gate-targets", "is required"),
        ({"gate_targets": "unix:g.sock"}, "--gate-targets", "whole path"),
        ({"gate_targets": "unix:/g.sock,gate:1"}, "--gate-targets", "all Unix sockets or all HOST:PORT"),
        ({"gate_targets": "gate:0"}, "--gate-targets", "a port from 1 on"),
        ({"gate_targets": "Gate_1:90"}, "--gate-targets", "lower case"),
        ({"gate_targets": "300.1.1.1:90"}, "--gate-targets", "lower case"),
        ({"gate_targets": "...:90"}, "--gate-targets", "lower case"),
        ({"gate_targets": "[fe80::1%eth0]:90"}, "--gate-targets", "lower case"),
        ({"gate_targets": f"unix:/{'s' * 107}"}, "--gate-targets", "at most 107 bytes"),
        ({"gate_targets": f"unix:/{'é' * 54}"}, "--gate-targets", "at most 107 bytes"),
        ({"cors_origins": "https://a.test,http://[::1]:3000"}, "--cors-origins", "must have no IPv6 address"),
        ({"gate_targets": "gate"}, "--gate-targets", "HOST:PORT"),
        ({**MACHINE, "endings_targets": ""}, "--endings-targets", "and --envoy-version go together"),
        ({"endings_targets": "unix:/e.sock"}, "--endings-targets", "and --envoy-version go together"),
        ({**MACHINE, "endings_targets": "gate:0"}, "--endings-targets", "a port from 1 on"),
        ({**MACHINE, "endings_targets": "gate:9101"}, "--endings-targets", "must be of the kind of --gate-targets"),
        ({"gateway_meter": "lua"}, "--gateway-meter", ""),
        ({"gateway_meter": "patch", "patches": "false"}, "--gateway-meter", "needs --patches"),
        ({"gateway_meter": "policy", "ai_gateway": "true"}, "--gateway-meter", "must be none with --ai-gateway"),
        ({**TLS, "gate_tls_ca": ""}, "--gate-tls-name", "needs --gate-tls-ca"),
        ({**TLS, "gate_tls_name": ""}, "--gate-tls-ca", "needs --gate-tls-name"),
        ({"gate_tls_client": "x"}, "--gate-tls-client", "needs --gate-tls-name"),
        ({**TLS, "gate_targets": "unix:/g.sock"}, "--gate-tls-name", "of no use with a Unix socket"),
        ({"gate_tls_client": "a/b/c"}, "--gate-tls-client", "lower-case"),
        ({**MACHINE, **HTTPS, "gateway_certificate": "web,a/b/c"}, "--gateway-certificate", "lower-case"),
        ({"gateway_namespace": "a.b"}, "--gateway-namespace", "no dots"),
        ({"gateway_name": "A"}, "--gateway-name", "lower-case"),
        ({"gateway_listeners": "http,Https"}, "--gateway-listeners", "lower-case"),
        ({"envoy_version": "1.39"}, "--envoy-version", ""),
        ({"envoy_version": "1.39.1"}, "--envoy-version", "and --gateway-http-port go together"),
        ({"gateway_http_port": "80"}, "--envoy-version", "and --gateway-http-port go together"),
        ({**MACHINE, "gateway_https_port": "443"}, "--gateway-https-port", "and --gateway-certificate go together"),
        ({**MACHINE, **HTTPS, "gateway_listeners": "http"}, "--gateway-https-port", "https among --gateway-listeners"),
        (HTTPS, "--gateway-https-port", "needs --envoy-version"),
        ({**MACHINE, "gateway_listeners": "http,https"}, "--gateway-listeners", "needs --gateway-https-port"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, str], option: str, rule: str) -> None:
    """In one message, by the option's name; "" stands for what is not given."""
    wanted = {field: value for field, value in (FOLDER | given).items() if value}
    with pytest.raises(BadSettings) as refused:
        read(AdminSettings, wanted)
    assert any(mistake.startswith(option) and rule in mistake for mistake in refused.value.mistakes)


@pytest.mark.parametrize("target", [f"unix:/{'s' * 106}", "10.0.0.7:90", "[::1]:90", "gate-1.test:90"])
def test_a_gate_that_a_backend_can_name_is_taken(target: str) -> None:
    """By a path as long as any, an address of either kind, or a name."""
    assert options(gate_targets=target).gate == (target,)


@pytest.mark.parametrize(
    ("given", "meter"),
    [
        ({}, MeterBy.PATCH),
        ({"patches": "false"}, MeterBy.NONE),
        ({"ai_gateway": "true"}, MeterBy.NONE),
        ({"patches": "false", "gateway_meter": "policy"}, MeterBy.POLICY),
        ({"gateway_meter": "none"}, MeterBy.NONE),
    ],
)
def test_answers_are_metered_by_what_is_allowed(given: dict[str, str], meter: MeterBy) -> None:
    """By a patch where patches are, unless another way is named; by none where another gateway counts."""
    assert options(**given).meter is meter


def test_other_gateways_take_origins_of_every_kind() -> None:
    """Only Envoy Gateway's own form of them is narrower."""
    assert read(AdminSettings, FILES | {"cors_origins": "http://[::1]:3000"}).cors_origins == ("http://[::1]:3000",)


@pytest.mark.parametrize("base", [ADMIN, FILES])
@pytest.mark.parametrize(
    "given", [TLS, {"patches": "false"}, {"trusted_hops": "1"}, {"restart_follows": "true"}, {"envoy_version": "1.2.3"}]
)
def test_what_is_for_envoy_gateway_is_refused_elsewhere(base: dict[str, str], given: dict[str, Any]) -> None:
    """Nobody believes to have set what does nothing."""
    with pytest.raises(BadSettings, match="which --publish-to does not name"):
        read(AdminSettings, base | given)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A name that was mistyped makes no folder."""
    settings = read(AdminSettings, FOLDER)
    with pytest.raises(CannotStart, match=r"folder:.*there is no such folder"):
        folder_sink(settings, f"folder:{tmp_path}/none", None, lambda: True)
