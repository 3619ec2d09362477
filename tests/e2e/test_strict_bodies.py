"""Bodies at the product's gate behind a real Envoy: what could be read in two ways reaches no model's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from gatebench import PATIENT, Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, ModelType, Protocol
from tests.e2e.proxy import HOST, Envoy, Reply, Upstream, options_for, short_folder

BY_PATH, BY_BODY = "/models/small/chat/completions", "/v1/chat/completions"
JSON = "content-type: application/json"


@dataclass
class Machine:
    """One server with two models, of which the key may call the small one."""

    envoy: Envoy
    upstream: Upstream
    key: str

    def post(self, path: str, body: bytes, *headers: str) -> Reply:
        """A call with the key."""
        return self.envoy.post(path, body, f"x-api-key: {self.key}", *headers)


@pytest.fixture(scope="module")
def machine(valkey_socket: object) -> Iterator[Machine]:
    """All parts, ready."""
    with short_folder() as folder, ExitStack() as stack:
        upstream = stack.enter_context(Upstream("model"))
        secrets = create_secrets(folder / "secrets.json")
        url = f"unix://{valkey_socket}?db=0"
        catalog = Catalog(url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        openai = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
        small, big = (catalog.publication(model=name, **openai) for name in ("small", "big"))
        catalog.add(HostRecord(HOST, {}, {f"tenant-a/{one.model}": one.uid for one in (small, big)}))
        _, key = catalog.key(small)
        target = f"unix:{folder}/gate.sock"
        gate = make_gate(target, url, secrets, CollectorRegistry(), PATIENT)
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, target))
        envoy.publish([small, big])
        stack.enter_context(envoy)
        yield Machine(envoy, upstream, key)


@pytest.mark.parametrize("path", [BY_PATH, BY_BODY])
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b'{"model":"small","Model":"big"}', "misspelt_field", "Model"),
        (b'{"model":"small","MODEL":"big"}', "misspelt_field", "MODEL"),
        (b'{"model":"small","model":"big"}', "repeated_field", "model"),
        (b'{"model":"big","model":"small"}', "repeated_field", "model"),
        (b'{"model":"small","\\u006dodel":"big"}', "repeated_field", "model"),
        (b'{"model":"small","\\u004dodel":"big"}', "misspelt_field", "Model"),
        (b'{"model":"small","max_tokens":1,"MAX_TOKENS":8000}', "misspelt_field", "MAX_TOKENS"),
        (b'{"model":"small","max_tokens":1,"max_tokens":8000}', "repeated_field", "max_tokens"),
        (b'{"model":"small","n":"8"}', "invalid_n", "n"),
        ('{"model":"small","max_to\u212aens":8000}'.encode(), "misspelt_field", "max_to\u212aens"),
        (b'{"model":"small","x":"\xc0\xa2"}', "invalid_json", None),
        ('{"model":"small"}'.encode("utf-16"), "invalid_json", None),
    ],
)
def test_what_two_servers_would_read_differently_goes_to_none(
    machine: Machine, path: str, body: bytes, code: str, param: str | None
) -> None:
    """400 that names the field, by both ways to a model, whatever the server makes of such a body."""
    before = machine.upstream.seen
    reply = machine.post(path, body)
    assert (reply.status, reply.json["error"]["code"], reply.json["error"]["param"]) == (400, code, param)
    assert machine.upstream.seen == before


@pytest.mark.parametrize("path", [BY_PATH, BY_BODY])
@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"model":"small"}',
        b'{"model":"small","seed":123456789012345678901234567890}',
        b'{"model":"small","x":[NaN,-Infinity,"\\ud800","\\u0000"]}',
        b'{"model":"small","user":"a","user":"b"}',
        b'{"model":"small","max_tokens":-1}',
        b'{"model":"small","max_tokens":null}',
        b'{"mod\\u0065l":"small"}',
    ],
)
def test_what_decides_nothing_passes_as_it_came(machine: Machine, path: str, body: bytes) -> None:
    """The server is sent the same bytes."""
    reply = machine.post(path, body)
    assert reply.status == 200, reply.body
    assert (reply.status, reply.json["body_bytes"]) == (200, len(body))


@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":""}'])
def test_a_models_own_url_names_it(machine: Machine, body: bytes) -> None:
    """There a body may leave ``model`` out; through the shared entry it may not."""
    assert machine.post(BY_PATH, body).status == 200
    refused = machine.post(BY_BODY, body)
    assert (refused.status, refused.json["error"]["code"]) == (400, "model_required")


def test_a_body_that_is_json_is_never_said_to_be_none(machine: Machine) -> None:
    """Of a wrong type it is 415, which quotes what came."""
    for sent in ("text/plain", "application/json, text/plain", "application/vnd.api+json"):
        reply = machine.post(BY_PATH, b'{"model":"small"}', f"content-type: {sent}")
        assert (reply.status, reply.json["error"]["code"]) == (415, "unsupported_media_type")
        assert sent in reply.json["error"]["message"]


@pytest.mark.parametrize("path", ["/models/small/audio/transcriptions", "/v1/audio/transcriptions"])
def test_a_form_names_its_model(machine: Machine, path: str) -> None:
    """Where the endpoint takes one: the field ``model`` decides, a doubled one is refused, a file passes whole."""

    def form(*models: str) -> bytes:
        part = b'--b0\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        fields = b"".join(part % (b"model", b"", model.encode()) for model in models)
        return fields + part % (b"file", b'; filename="a.wav"', b"RIFF\x00\xff" * 100) + b"--b0--\r\n"

    kind = "content-type: multipart/form-data; boundary=b0"
    reply = machine.post(path, form("small"), kind)
    assert (reply.status, reply.json["body_bytes"]) == (200, len(form("small")))
    assert machine.post(path, form("big"), kind).status in {403, 404}
    assert machine.post(path, form("small", "small"), kind).json["error"]["code"] == "repeated_field"
    assert machine.post(path, form(), kind).status == (200 if path.startswith("/models") else 400)


def test_a_large_body_is_read_as_a_small_one_is(machine: Machine) -> None:
    """By its own way to the gate: to its model, or refused by the field."""
    pad = b'"x":[' + b"{}," * 300_000 + b"{}]"
    assert machine.post(BY_BODY, b'{"model":"small",' + pad + b"}").status == 200
    reply = machine.post(BY_BODY, b'{"model":"small",' + pad + b',"Model":"big"}')
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (400, "Model")
