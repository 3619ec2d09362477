"""How callers send their keys, by real clients through a real Envoy to the product's gate; no copy reaches a server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from gatebench import PATIENT, Catalog, make_gate, wait_until
from openai import AsyncOpenAI, AuthenticationError, AzureOpenAI, OpenAI
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, ModelType, Protocol
from tests.e2e import http2
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, Reply, Upstream, head, options_for, short_folder

BY_BODY, IRIS, OPEN = "/v1/chat/completions", "/models/iris", "/models/open"
AZURE = "/openai/deployments/llm"
CHAT = b'{"model":"llm","messages":[]}'
HELLO: Any = [{"role": "user", "content": "Hello!"}]


@dataclass
class Machine:
    """An openai, a traditional and an open model of one server, and two keys of the first two."""

    envoy: Envoy
    upstream: Upstream
    key: str
    other: str

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.envoy.ports['http']}"

    def call(self, path: str, *headers: str) -> Reply:
        """A call by the path's own method."""
        filled = [header.replace("KEY", self.key).replace("OTHER", self.other) for header in headers]
        path = path.replace("KEY", self.key)
        return self.envoy.get(path, *filled) if path.startswith("/models") else self.envoy.post(path, CHAT, *filled)


@pytest.fixture(scope="module")
def machine(valkey_socket: object) -> Iterator[Machine]:
    """All parts, ready."""
    with short_folder() as folder, ExitStack() as stack:
        upstream = stack.enter_context(Upstream("model"))
        secrets = create_secrets(folder / "secrets.json")
        url = f"unix://{valkey_socket}?db=3700"
        catalog = Catalog(url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        openai: Any = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}
        llm = catalog.publication(model="llm", path=AZURE, **openai)
        iris = catalog.publication(model="iris", path=IRIS)
        free = catalog.publication(model="open", path=OPEN, require_api_key=False)
        catalog.add(HostRecord(HOST, {}, {"tenant-a/llm": llm.uid}))
        keys = [catalog.key(llm, iris, free)[1] for _ in range(2)]
        target = f"unix:{folder}/gate.sock"
        gate = make_gate(target, url, secrets, CollectorRegistry(), PATIENT)
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, target))
        envoy.publish([llm, iris, free])
        stack.enter_context(envoy)
        yield Machine(envoy, upstream, *keys)


def arrived(answer: Any, key: str) -> dict[str, str]:
    """What the server saw, as headers by name; it saw nothing of the key."""
    assert key not in json.dumps(answer)
    pairs = [line.partition(": ") for line in answer["headers"]]
    assert answer["upstream"] == "model"
    return {"": answer["line"]} | {name.lower(): value for name, _, value in pairs}


def test_openais_client(machine: Machine) -> None:
    """As it is, and with Azure's header beside its own."""
    for more in ({}, {"api-key": machine.key}, {"X-API-Key": "sk-of-somebody-else"}):
        with OpenAI(
            base_url=f"{machine.url}/v1", api_key=machine.key, default_headers={"Host": HOST, **more}
        ) as client:
            raw = client.chat.completions.with_raw_response.create(model="llm", messages=HELLO)
        assert not {"authorization", "api-key", "x-api-key"} & arrived(json.loads(raw.content), machine.key).keys()


async def test_openais_client_with_another_openai_key(machine: Machine) -> None:
    """The client insists on its own credential; ours beside it counts, and the other one ends here too."""
    headers = {"Host": HOST, "x-goog-api-key": machine.key}
    async with AsyncOpenAI(base_url=f"{machine.url}/v1", api_key="sk-foreign", default_headers=headers) as client:
        raw = await client.chat.completions.with_raw_response.create(model="llm", messages=HELLO)
    assert "sk-foreign" not in raw.text
    arrived(json.loads(raw.text), machine.key)


@pytest.mark.parametrize("more", [{}, {"Authorization": "Bearer KEY"}])
def test_azures_client(machine: Machine, more: dict[str, str]) -> None:
    """A model that is published at `/openai/deployments/NAME` is a deployment to it, by Azure's own header."""
    headers = {"Host": HOST} | {name: value.replace("KEY", machine.key) for name, value in more.items()}
    made: Any = {"azure_endpoint": machine.url, "azure_deployment": "llm", "api_version": "2024-10-21"}
    with AzureOpenAI(**made, api_key=machine.key, default_headers=headers) as client:
        raw = client.chat.completions.with_raw_response.create(model="llm", messages=HELLO)
    said = arrived(json.loads(raw.content), machine.key)
    assert "api-key" not in said
    assert said[""] == "POST /v1/chat/completions?api-version=2024-10-21 HTTP/1.1"


def test_azures_client_with_a_key_that_is_none(machine: Machine) -> None:
    """Is told so by its own exception."""
    made: Any = {"azure_endpoint": machine.url, "azure_deployment": "llm", "api_version": "2024-10-21"}
    with (
        AzureOpenAI(**made, api_key=machine.key[:-1], default_headers={"Host": HOST}) as client,
        pytest.raises(AuthenticationError),
    ):
        client.chat.completions.create(model="llm", messages=HELLO)


PLACES = [
    "ocp-apim-subscription-key: KEY",
    "x-litellm-api-key: Bearer KEY",
    "proxy-authorization: Basic KEY",
    "proxy-authorization: Bearer other",
    "authorization: Bearer KEY",
    "api-key: KEY",
    "x-goog-api-key: KEY",
    "x-goog-api-key: OTHER",
    "authorization: Basic KEY",
    "referer: http://api.example.test/?key=KEY",
    "x-forwarded-for: KEY",
    "user-agent: agent/KEY",
    "x-api-key: KEY",
    "x-stainless-lang: KEY",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", [BY_BODY, IRIS, AZURE + "/chat/completions"])
def test_no_header_brings_a_copy_to_the_server(machine: Machine, path: str, place: str) -> None:
    """Whatever its name; what else came stays. Twice: as it is decided first, and by what was kept of that."""
    for _ in range(2):
        reply = machine.call(path, "x-api-key: KEY", place, "x-kept: 1", "cookie: session=7")
        said = arrived(reply.json, machine.key)
        assert machine.other not in reply.body
        assert (said["x-kept"], said["cookie"]) == ("1", "session=7")
        assert "proxy-authorization" not in said


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (["cookie: a=1; token=KEY; b=2"], "a=1; b=2"),
        (["cookie: token=KEY"], None),
        (["cookie: a=1", "cookie: token=KEY", "cookie: b=2"], None),
        (["cookie: a=KEY", "cookie: b=2; c=3"], "c=3"),
    ],
)
def test_of_cookies_the_crumb_is_cut_out(machine: Machine, sent: list[str], left: str | None) -> None:
    """The others go on, but those that Envoy had joined with it by commas."""
    reply = machine.call(IRIS, "authorization: Bearer KEY", *sent)
    assert arrived(reply.json, machine.key).get("cookie") == left


def test_over_http2_crumbs_come_one_by_one(machine: Machine) -> None:
    """And are cut out one by one."""
    crumbs = [("cookie", "a=1"), ("cookie", f"token={machine.key}"), ("cookie", "b=2"), ("x-api-key", machine.key)]
    answer = http2.post(machine.envoy.ports["http"], HOST, BY_BODY, CHAT, PATIENCE_S, *crumbs)
    assert arrived(json.loads(answer.body), machine.key)["cookie"] == "a=1; b=2"


@pytest.mark.parametrize("query", ["?key=KEY", "?api-key=KEY&a=1", "?a=1&x=KEYx", "/KEY", "?KEY"])
@pytest.mark.parametrize("headers", [["x-api-key: KEY"], ["authorization: Bearer KEY"], []])
@pytest.mark.parametrize("path", [BY_BODY, IRIS, OPEN])
def test_a_key_in_the_url_is_refused(machine: Machine, path: str, query: str, headers: list[str]) -> None:
    """With a good key beside it and without, also where none is asked for. No answer shows it, nor does a 404."""
    before = machine.upstream.seen
    reply = machine.call(path + query, *headers)
    assert machine.upstream.seen == before
    assert reply.status in {400, 404}  # where nothing is published there is nothing to check
    if reply.status == 400:
        assert reply.json["error"]["code"] == "key_in_url"
    assert machine.key not in reply.body
    assert path == BY_BODY or query == "/KEY" or reply.status == 400


def test_a_call_without_a_key_brings_none_along(machine: Machine) -> None:
    """Where no key is asked for, a text of one in any other header does not reach the server either."""
    reply = machine.call(OPEN, "x-any: KEY", "cookie: a=KEY; b=1")
    said = arrived(reply.json, machine.key)
    assert (said["cookie"], "x-any" in said) == ("b=1", False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["x-api-key: KEY", "x-api-key: KEY"], 200),
        (["authorization: Bearer KEY", "authorization: Bearer KEY"], 200),
        (["x-api-key: KEY", "x-api-key: OTHER"], 401),
        (["x-api-key: sk-foreign", "authorization: Bearer KEY"], 200),
        (["authorization: Bearer sk-foreign"], 401),
        (["x-goog-api-key: KEY"], 200),
        (["api-key: KEY"], 200),
        (["cookie: x-api-key=KEY"], 401),
        (["x-other: KEY"], 401),
    ],
)
@pytest.mark.parametrize("path", [BY_BODY, IRIS])
def test_who_counts_as_whom(machine: Machine, path: str, headers: list[str], status: int) -> None:
    """Equal values are one, different ones none; a foreign credential is no harm."""
    reply = machine.call(path, *headers)
    assert reply.status == status
    if status == 200:
        assert "sk-foreign" not in reply.body
        arrived(reply.json, machine.key)


def test_curl_with_its_own_user_and_a_key(machine: Machine) -> None:
    """What curl makes of `-u` is foreign to us."""
    command = ["curl", "-s", "-u", "user:secret", "-H", f"X-API-Key: {machine.key}", "-H", f"host: {HOST}"]
    answer = subprocess.run([*command, f"{machine.url}{IRIS}"], capture_output=True, check=True, timeout=PATIENCE_S)
    assert "authorization" not in arrived(json.loads(answer.stdout), machine.key)


def test_equal_content_types_pass_as_one(machine: Machine) -> None:
    """The server reads one; different ones are refused, and the answer quotes them."""
    kind = "content-type: application/json"
    reply = machine.envoy.post(BY_BODY, CHAT, f"x-api-key: {machine.key}", kind, kind)
    assert arrived(reply.json, machine.key)["content-type"] == "application/json"
    reply = machine.envoy.post(BY_BODY, CHAT, f"x-api-key: {machine.key}", kind, "content-type: text/plain")
    assert (reply.status, "'application/json,text/plain'" in reply.json["error"]["message"]) == (415, True)


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": -1},
        {"max_tokens": None},
        {"model": None, "max_tokens": -1},
        {"model": "", "n_predict": -2},
        {"max_completion_tokens": -1},
    ],
)
def test_none_given_is_none_given(machine: Machine, body: dict[str, Any]) -> None:
    """No bound, and no model where the URL names it."""
    reply = machine.envoy.post(f"{AZURE}/chat/completions", json.dumps(body).encode(), f"x-api-key: {machine.key}")
    assert reply.upstream == "model"


def test_a_refused_call_takes_nothing_for_its_copies(machine: Machine) -> None:
    """Nor is it answered before its key was looked at: what is none is 401 with copies and without."""
    copied = head("GET", IRIS, f"host: {HOST}", f"x-api-key: {machine.key[:-1]}0", f"x-a: {machine.key}")
    assert machine.envoy.send(copied).status == 401
