"""The gate's settings that only make sense together."""

from __future__ import annotations

import pytest

from runtime.readiness import Readiness
from runtime.settings import BadSettings, as_text, read
from tollkeeper.gate.app import GateSettings
from tollkeeper.gate.transport import with_transport

TLS = {"transport": "grpcio", "tls_certificate": "c.pem", "tls_key": "k.pem"}

REFUSED = [
    ({"listen": "0.0.0.0:9001"}, "--listen .*has no TLS; give --transport grpcio"),
    ({"tls_certificate": "c.pem", "tls_key": "k.pem"}, "--transport .*native has no TLS; --tls-certificate needs"),
    ({"transport": "grpcio", "tls_key": "k.pem"}, "--tls-certificate .*is needed with --tls-key"),
    ({"transport": "grpcio", "tls_certificate": "c.pem"}, "--tls-key .*is needed with --tls-certificate"),
    ({"transport": "grpcio", "tls_client_ca": "a.pem"}, "--tls-certificate .*is needed with --tls-client-ca"),
    (TLS | {"insecure_plaintext": "true"}, "--insecure-plaintext .*contradicts --tls-certificate"),
    ({"endings_listen": "0.0.0.0:9101"}, "--endings-listen .*has no TLS; give --transport grpcio"),
    (TLS | {"endings_listen": "0.0.0.0:9101"}, "--endings-listen .*whose clients must be known; give --tls-client-ca"),
    (
        {"listen": "unix:/g.sock", "endings_listen": "unix:/g.sock"},
        "--endings-listen .*some would be those of --listen",
    ),
    (
        {"listen": "127.0.0.1:9001", "endings_listen": "127.0.0.1:9002", "workers": "2"},
        "--endings-listen .*some would be those of --listen",
    ),
    ({"endings_listen": "127.0.0.1:65535", "workers": "2"}, "--workers .*need as many ports from 65535 on"),
    ({"endings_listen": "9101"}, "--endings-listen .*must be unix:PATH or HOST:PORT"),
    ({"usage_metadata": "x"}, "--usage-metadata .*is not NAMESPACE:TOTAL,PROMPT,COMPLETION"),
    ({"listen": "127.0.0.1:65535", "workers": "2"}, "--workers .*need as many ports from 65535 on"),
    ({"services": "check,ext_proc"}, "--services .*must be check, ratelimit, or one of them"),
    ({"services": "check", "descriptors": "d.yaml"}, "--descriptors .*needs the service ratelimit"),
    ({"transport": "grpc"}, "--transport .*must be 'native' or 'grpcio'"),
    ({"key_headers": "api-key"}, "--key-headers .*must name X-API-Key, by which the publisher asks"),
    ({"key_headers": f"x-api-key,{','.join(f'k-{n}' for n in range(99))}"}, "--key-headers .*headers at most"),
    *(
        ({"key_headers": f"x-api-key,{name}"}, "--key-headers .*must be names of headers .*not accept-encoding")
        for name in (
            *("host", "cookie", "content-type", "Transfer-Encoding", "connection", "accept-encoding"),
            *("x-request-id", "x-tenant-id", "x-key-id", "x-envoy-external-address", "X-Tollkeeper-Publication"),
        )
    ),
    ({"key_headers": "x-api-key,api_key"}, "--key-headers .*must be names of headers"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, str], said: str) -> None:
    """Each mistake names its option and the rule, before anything listens."""
    with pytest.raises(BadSettings, match=said):
        read(GateSettings, {"secrets_file": "s.json"} | given)


def test_headers_of_keys_are_kept_in_order_and_a_bad_one_is_not_told() -> None:
    """Names are the same in any case, and once; what is no name may be a secret in the wrong place."""
    settings = read(GateSettings, {"secrets_file": "s.json", "key_headers": "Api-Key,X-API-Key,api-key"})
    assert settings.key_headers == ("api-key", "x-api-key")
    with pytest.raises(BadSettings) as refused:
        read(GateSettings, {"secrets_file": "s.json", "key_headers": "x-api-key,tk_hunter2"})
    assert "hunter2" not in str(refused.value)


def test_tls_is_enough_to_listen_for_other_machines() -> None:
    """With a certificate no other word is needed, and there is nothing to warn of."""
    settings = read(GateSettings, {"secrets_file": "s.json", "listen": "0.0.0.0:9001"} | TLS)
    state = with_transport(settings, Readiness())
    assert state.facts == {"transport": "grpcio", "tls": "no client certificates asked for"}
    assert not state.warnings


def test_plaintext_for_other_machines_is_shown() -> None:
    """Who insists on plaintext finds it in /readyz, beside what is there already."""
    given = {"secrets_file": "s.json", "listen": "0.0.0.0:9001", "insecure_plaintext": "true"}
    state = with_transport(read(GateSettings, given), Readiness(facts={"epoch": "1-a"}))
    assert state.ready
    assert state.facts["epoch"] == "1-a"
    assert state.facts["tls"] == "none"
    told = "--insecure-plaintext: 0.0.0.0:9001 takes keys unencrypted from other machines"
    assert [warning.problem for warning in state.warnings] == [told]
    given = {"secrets_file": "s.json", "endings_listen": "0.0.0.0:9101", "insecure_plaintext": "true"}
    (warning,) = with_transport(read(GateSettings, given), Readiness()).warnings
    assert "0.0.0.0:9101 takes endings unencrypted" in warning.problem


@pytest.mark.parametrize(
    ("listen", "endings", "workers"),
    [
        ("unix:/g.sock", "unix:/e.sock", 2),
        ("127.0.0.1:9001", "127.0.0.1:9003", 2),
        ("127.0.0.1:0", "127.0.0.1:0", 2),
        ("127.0.0.1:9001", "127.0.0.2:9001", 2),
        ("unix:/g.sock", "127.0.0.1:9001", 4),
    ],
)
def test_addresses_that_do_not_meet_are_taken(listen: str, endings: str, workers: int) -> None:
    """Calls and endings side by side, each worker's too."""
    given = {"secrets_file": "s.json", "listen": listen, "endings_listen": endings, "workers": str(workers)}
    assert str(read(GateSettings, given).endings_listen) == endings


def test_settings_as_text_read_back_the_same() -> None:
    """What a worker is given is what its parent was given, secrets included."""
    given = {
        "secrets_file": "s.json",
        "redis_url": "redis://:word@r/1",
        "listen": "unix:/a.sock",
        "drain_s": "0.25",
    } | TLS
    settings = read(GateSettings, given)
    assert read(GateSettings, as_text(settings)) == settings
