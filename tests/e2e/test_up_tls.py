"""``tollkeeper up --tls``: over https only, with the machine's own certificate or the operator's, renewed at work."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import openai
import pytest
import requests
from authority import Authority
from upmachine import UpMachine, refused, until, up_machine

from tests.e2e.proxy import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HOST = "api.router.inference-in-a-box"
OTHER = "api.mycompany.com"
BODY = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """With its own certificate."""
    with short_folder() as folder, up_machine(folder / "state", "--tls") as made:
        yield made


def http_port(up: UpMachine) -> int:
    """Where it says that http is."""
    found = re.search(r"  gateway   http://127.0.0.1:(\d+) ", up.printed)
    assert found
    return int(found[1])


def https_port(up: UpMachine) -> int:
    """Where https is."""
    return int(up.up["gateway_url"].rpartition(":")[2])


def decisions(up: UpMachine) -> float:
    """How many calls the gate has decided."""
    lines = requests.get(up.up["metrics_url"], timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("tollkeeper_decisions_total{"))


def test_what_is_printed_works_over_https(machine: UpMachine) -> None:
    """The newcomer's pastes are the same as without --tls."""
    for title, status in (
        ("A call that is answered 200:", 200),
        ("The same without a key, 401:", 401),
        ("A chat over https:", 200),
    ):
        answer = machine.pasted(title)
        assert answer.stdout.split()[1:2] == [str(status)], answer


def test_up_json_names_https_and_what_to_trust(machine: UpMachine) -> None:
    """Whoever reads it needs to know nothing else."""
    sample = machine.up["sample"]["traditional"]
    headers = {"Host": sample["host"], "X-API-Key": sample["api_key"]}
    url = f"{machine.up['gateway_url']}/models/{sample['model']}/predict"
    answer = requests.post(url, json=BODY, headers=headers, verify=machine.up["gateway_ca"], timeout=10)
    assert answer.status_code == 200


def test_http_only_sends_callers_on(machine: UpMachine) -> None:
    """No key is taken: the gate hears nothing of a call that would be good over https."""
    sample, before = machine.up["sample"]["traditional"], decisions(machine)
    port, path = http_port(machine), f"/models/{sample['model']}/predict"
    for host, there in ((sample["host"], sample["host"]), (f"x:{port}", f"x:{https_port(machine)}")):
        headers = {"Host": host, "X-API-Key": sample["api_key"]}
        url = f"http://127.0.0.1:{port}{path}"
        answer = requests.post(url, json=BODY, headers=headers, timeout=10, allow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (308, f"https://{there}{path}")
    assert decisions(machine) == before


def test_the_guides_curl_follows_from_http(machine: UpMachine) -> None:
    """With CURL_HOME and -L, on the usual ports."""
    sample = machine.up["sample"]["traditional"]
    url = f"http://{sample['host']}/models/{sample['model']}/predict"
    told = machine.guide(f"curl -sSL -H 'X-API-Key: {sample['api_key']}' -d '{{\"instances\": [[1.0]]}}' {url}")
    assert '"predictions"' in told.stdout, told


class Detour(httpcore2.SyncBackend):
    """A name server and ports 80 and 443, which a test cannot have: every host is this machine's gateway."""

    def __init__(self, up: UpMachine) -> None:
        self._ports = {80: http_port(up), 443: https_port(up)}

    def connect_tcp(self, host: str, port: int, *rest: Any, **more: Any) -> httpcore2.NetworkStream:
        """Connect to the gateway instead."""
        del host
        return super().connect_tcp("127.0.0.1", self._ports[port], *rest, **more)


def test_openais_client_survives_an_http_address(machine: UpMachine) -> None:
    """A base URL that begins with http works: the POST is sent again with its body and its key."""
    sample = machine.up["sample"]["openai"]
    transport = httpx2.HTTPTransport()
    context = ssl.create_default_context(cafile=machine.up["gateway_ca"])
    transport._pool = httpcore2.ConnectionPool(ssl_context=context, network_backend=Detour(machine))
    with openai.OpenAI(
        base_url=f"http://{sample['host']}/v1",
        api_key=sample["api_key"],
        max_retries=0,
        http_client=openai.DefaultHttpxClient(transport=transport),
    ) as client:
        chat = client.chat.completions.create(model=sample["model"], messages=[{"role": "user", "content": "Hello!"}])
    assert chat.choices[0].message.content


def shown(up: UpMachine, authority: Authority, name: str) -> bytes:
    """The certificate that a caller of this name is shown and accepts."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        socket.create_connection(("127.0.0.1", https_port(up)), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def test_the_operators_certificates_are_shown_and_renewed() -> None:
    """Each for its name; one that is copied over the old one is shown soon, one that is no good never."""
    with short_folder() as folder:
        authority = Authority(folder, "ours")
        pairs = authority.give(HOST), authority.give(OTHER)
        files = [",".join(str(pair[part]) for pair in pairs) for part in (0, 1)]
        options = ("--tls", "--tls-certificate", files[0], "--tls-key", files[1])
        with up_machine(folder / "state", *options) as up:
            assert up.up["gateway_url"] == f"https://{HOST}:{https_port(up)}"
            assert "gateway_ca" not in up.up
            first, second = shown(up, authority, HOST), shown(up, authority, OTHER)
            assert first != second
            sample = up.up["sample"]["traditional"]
            url = f"{up.up['gateway_url']}/models/{sample['model']}"
            told = up.guide(f"curl -sS --cacert {authority.ca} -H 'X-API-Key: {sample['api_key']}' {url}")
            assert sample["model"] in told.stdout, told
            authority.give(HOST)  # over the old files
            assert until(lambda: shown(up, authority, HOST) != first, 30)
            renewed = shown(up, authority, HOST)
            shutil.copyfile(pairs[1][1], pairs[0][1])
            assert until(lambda: "warning: https shows the certificate it had: --tls-key" in up.printed, 30)
            assert shown(up, authority, HOST) == renewed
            assert shown(up, authority, OTHER) == second


def test_a_wrong_pair_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """One sentence that names option and file; so is a certificate without its key."""
    authority = Authority(tmp_path, "ours")
    certificate, other = authority.give(HOST)[0], authority.give(OTHER)[1]
    told = refused(tmp_path / "state", "--tls-certificate", str(certificate), "--tls-key", str(other))
    assert told.returncode == 1
    assert told.stderr == (
        f"Error: tollkeeper up: --tls-key {other}: is not the key of the certificate in {certificate}\n"
    )
    told = refused(tmp_path / "state", "--tls", "--tls-certificate", str(certificate))
    assert told.returncode == 2
    assert "--tls-key (TOLLKEEPER_TLS_KEY): must name as many files as --tls-certificate" in told.stderr
