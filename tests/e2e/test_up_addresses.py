"""``tollkeeper up``: what is published is reached from here as it is shown, with plain curl and no name server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from upmachine import UpMachine, until

BODY = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}
DEFAULT_HOST = "api.router.inference-in-a-box"

pytestmark = pytest.mark.timeout(180)


class Admin:
    """The admin of a machine, with plain HTTP."""

    def __init__(self, up: UpMachine) -> None:
        self._url = up.up["admin_url"]
        self._session = requests.Session()
        self._session.trust_env = False
        login = {"username": up.up["admin_username"], "password": up.up["admin_password"]}
        token = self._session.post(f"{self._url}/api/admin/login", json=login, timeout=20).json()["token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        """One call; no body at all where none is given."""
        return self._session.request(method, self._url + path, json=body, timeout=20)

    def is_live(self, model: str) -> bool:
        """Whether Envoy serves what was published last."""
        return bool(self.ask("GET", f"/api/models/{model}/publish?tenantId=default").json()["status"] == "live")


@pytest.fixture
def admin(up: UpMachine) -> Admin:
    """Who is logged in."""
    return Admin(up)


@pytest.fixture
def model(admin: Admin) -> Iterator[str]:
    """The path of a model of the tenant default, which is not published."""
    server = admin.ask("GET", "/api/models/my-llm?tenantId=tenant-a").json()["url"]
    made = admin.ask("POST", "/api/models", {"name": "my-llm", "tenantId": "default", "url": server})
    assert made.status_code == 201, made.text
    yield "my-llm"
    for path in ("my-llm/publish", "my-llm"):
        admin.ask("DELETE", f"/api/models/{path}?tenantId=default")


def port_of(up: UpMachine) -> str:
    """Where http is."""
    return str(up.up["gateway_url"].rpartition(":")[2])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_samples_are_reached_where_they_are(up: UpMachine, host: str) -> None:
    """By the names of this machine, without a Host header; the guide's host by its header as ever."""
    sample = up.up["sample"]["traditional"]
    url = f"http://{host}:{port_of(up)}/models/{sample['model']}/predict"
    for more in ({}, {"Host": DEFAULT_HOST}):
        headers = {"X-API-Key": sample["api_key"], **more}
        assert until(lambda given=headers: requests.post(url, json=BODY, headers=given, timeout=20).status_code == 200)


def test_a_model_is_published_with_one_plain_curl_and_called_with_the_next(
    up: UpMachine, admin: Admin, model: str
) -> None:
    """No body, no host: the URL that is shown works from here, and so does the example, pasted into a shell."""
    made = admin.ask("POST", f"/api/models/{model}/publish?tenantId=default")
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown["externalUrl"] == f"http://localhost:{port_of(up)}/v1/models/{model}"
    assert shown["publicHostname"] == DEFAULT_HOST
    assert until(lambda: admin.is_live(model), 20)
    pasted = up.shell(
        f"{shown['examples']['curl']} -s -w '\n%{{http_code}}'", API_KEY=shown["apiKey"], CURL_HOME="/none"
    )
    assert pasted.stdout.endswith("\n200"), pasted
    headers = {"Authorization": f"Bearer {shown['apiKey']}"}
    listed = requests.get(f"http://localhost:{port_of(up)}/v1/models", headers=headers, timeout=20).json()
    assert [one["id"] for one in listed["data"]] == [model]
    told = admin.ask("POST", "/api/validate-api-key", {"apiKey": shown["apiKey"]}).json()
    assert told["externalUrl"] == shown["externalUrl"]


def test_a_named_host_is_shown_by_its_name(up: UpMachine, admin: Admin, model: str) -> None:
    """As the guide says; its example still works from here. Other hosts' publications are not on localhost."""
    named = admin.ask(
        "POST", f"/api/models/{model}/publish?tenantId=default", {"config": {"publicHostname": DEFAULT_HOST}}
    ).json()
    assert named["externalUrl"] == f"https://{DEFAULT_HOST}/v1/models/{model}"
    assert f"http://localhost:{port_of(up)}/v1/" in named["examples"]["curl"]
    moved = admin.ask(
        "PUT", f"/api/models/{model}/publish?tenantId=default", {"config": {"publicHostname": "own.example"}}
    ).json()
    assert moved["externalUrl"] == f"https://own.example/v1/models/{model}"
    assert until(lambda: admin.is_live(model), 20)
    url, key = f"http://localhost:{port_of(up)}/v1/chat/completions", {"X-API-Key": named["apiKey"]}
    chat = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    assert requests.post(url, json=chat, headers=key, timeout=20).status_code == 404
    assert requests.post(url, json=chat, headers={**key, "Host": "own.example"}, timeout=20).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_another_name_of_the_default_host_is_nobodys(admin: Admin, model: str, host: str) -> None:
    """Who publishes there by name would take it from all who name none."""
    refused = admin.ask("POST", f"/api/models/{model}/publish?tenantId=default", {"config": {"publicHostname": host}})
    assert refused.status_code == 400, refused.text
    (fault,) = refused.json()["errors"]
    assert (fault["field"], fault["rule"]) == ("config.publicHostname", "reserved")


def test_the_guides_addresses_work_with_the_machines_curl(up: UpMachine) -> None:
    """Found by PATH as the screen says: https to the default host and the custom domain, and the guide's admin port."""
    (line,) = [line.strip() for line in up.printed.splitlines() if line.strip().startswith("export PATH=")]
    exported = line.partition("   (")[0]
    for url, status in (
        ("https://api.router.inference-in-a-box/models/none", "404"),
        ("https://api.mycompany.com/models/none", "404"),
        ("http://api.router.inference-in-a-box/models/none", "404"),
        ("http://localhost:8085/healthz", "200"),
    ):
        answer = up.shell(f"{exported}\ncurl -sS -o /dev/null -w '%{{http_code}}' {url}")
        assert (answer.stdout, answer.stderr) == (status, ""), url


def test_the_machines_curl_leaves_other_hosts_alone(up: UpMachine) -> None:
    """A call of another host gets the very words that were typed; what it is told of ours leads nobody else here."""
    with_stub = 'mkdir -p "$DIR"; printf \'#!/bin/sh\\nprintf "%%s\\\\n" "$@"\\n\' >"$DIR/curl"; chmod +x "$DIR/curl"\n'
    variables = {"DIR": str(up.state / "stub"), "PATH": f"{up.state}/bin:{up.state}/stub:/usr/bin:/bin"}
    words = [
        "-d",
        "a b",
        "https://example.com/x?u=https://api.router.inference-in-a-box",
        "https://api.mycompany.com.evil/",
    ]
    quoted = " ".join(f"'{word}'" for word in words)
    assert up.shell(f"{with_stub}curl {quoted}", **variables).stdout.splitlines() == words
    ours = up.shell("curl https://api.mycompany.com/x", **variables).stdout.splitlines()
    assert ours == ["--config", str(up.state / "curl/.curlrc"), "https://api.mycompany.com/x"]
    told = (up.state / "curl/.curlrc").read_text()
    hosts = {found.partition(":")[0] for found in re.findall(r'connect-to = "(.*)"', told)}
    assert hosts == {DEFAULT_HOST, "api.mycompany.com", "localhost"}
    assert subprocess.run(["sh", "-n", str(up.state / "bin/curl")], check=False).returncode == 0
    assert json.dumps(up.up["admin_password"]) not in told


def test_what_is_not_there_is_named(up: UpMachine) -> None:
    """Host and path as they were seen, in valid JSON whatever stands there; not the query, where secrets may stand.

    Where any of it may hold a key of ours, nothing is told back.
    """
    key = f"tk_0a1{'a' * 16}_secret"
    for path in (f"/models/none?key={key}", f"/{key}"):
        answer = requests.get(f"http://localhost:{port_of(up)}{path}", timeout=20)
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Nothing is published here.")
        assert "tk_" not in answer.text
    port = int(port_of(up))
    for host, path, seen in (
        ("localhost", "/models/none?key=sk_secret", "/models/none"),
        ("nobody.example", "/a%22b%0a/%25REQ(X-API-KEY)%25", "/a%22b%0a/%25REQ(X-API-KEY)%25"),
        ("nobody.example", "/%REQ(X-API-KEY)%", None),
        ("nobody.example", '/a"b\\c', None),
        ("nobody.example", f"/{'x' * 3_000}", f"/{'x' * 511}"),
    ):
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            raw.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nX-API-Key: tk_x\r\nConnection: close\r\n\r\n".encode()
            )
            status, _, body = b"".join(iter(lambda from_=raw: from_.recv(65536), b"")).decode().partition("\r\n\r\n")
        if seen is None and " 400 " in status.splitlines()[0]:
            continue
        error = json.loads(body)["error"]
        assert (" 404 " in status.splitlines()[0], error["code"], error["host"]) == (True, "not_found", host)
        assert error["path"] == (seen or error["path"])
        assert error["message"] == f"Nothing is published at {host}{error['path']}."
        assert "sk_secret" not in body


def test_what_is_anothers_is_answered_like_what_is_not_there(up: UpMachine, admin: Admin) -> None:
    """To a good key of another tenant: the status and every byte but for the path."""
    headers = {"X-API-Key": up.up["sample"]["openai"]["api_key"]}
    url = f"http://localhost:{port_of(up)}/models"
    server = admin.ask("GET", "/api/models/my-model?tenantId=tenant-a").json()["url"]
    admin.ask("POST", "/api/models", {"name": "my-model", "tenantId": "default", "url": server})
    made = admin.ask(
        "POST", "/api/models/my-model/publish?tenantId=default", {"config": {"externalPath": "/models/there"}}
    )
    assert made.status_code == 201, made.text
    try:
        assert until(lambda: admin.is_live("my-model"), 20)
        there, absent = (
            requests.post(f"{url}/{name}/predict", json=BODY, headers=headers, timeout=20)
            for name in ("there", "absent")
        )
    finally:
        for path in ("my-model/publish", "my-model"):
            admin.ask("DELETE", f"/api/models/{path}?tenantId=default")
    assert there.json()["error"]["path"] == "/models/there/predict"
    assert (there.status_code, there.content.replace(b"there/", b"absent/")) == (404, absent.content)
