"""``tollkeeper up``: what it prints works when pasted, what it writes says the truth, and what it refuses is told."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import redis
import requests
from upmachine import UpMachine, processes_logging_to, refused, until

UP_JSON = {
    "gateway_url",
    "admin_url",
    "metrics_url",
    "admin_metrics_url",
    "grpc_target",
    "redis_url",
    "envoy_admin_socket",
    "admin_username",
    "admin_password",
    "sample",
}
IRIS = "/models/iris-sample/predict"
BODY = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}

pytestmark = pytest.mark.timeout(180)


def status_of(answer: str) -> int:
    """Return the status of what ``curl -i`` printed."""
    return int(answer.split()[1])


def predict(up: UpMachine, sample: dict[str, str]) -> int:
    """Return the status of one call of a sample."""
    headers = {"Host": sample["host"], "X-API-Key": sample["api_key"]}
    return requests.post(up.up["gateway_url"] + IRIS, json=BODY, headers=headers, timeout=10).status_code


def test_the_printed_call_is_answered_200(up: UpMachine) -> None:
    """A newcomer's first paste shows a prediction."""
    answer = up.pasted("A call that is answered 200:")
    assert status_of(answer.stdout) == 200, answer
    assert '"predictions"' in answer.stdout


def test_the_printed_call_without_a_key_is_answered_401(up: UpMachine) -> None:
    """The second paste shows the gate."""
    answer = up.pasted("The same without a key, 401:")
    assert status_of(answer.stdout) == 401, answer


def test_the_printed_chat_is_answered_over_https(up: UpMachine) -> None:
    """The machine's certificate is accepted, the model answers with usage."""
    answer = up.pasted("A chat over https:")
    assert status_of(answer.stdout) == 200, answer
    assert '"usage"' in answer.stdout


def test_the_printed_hint_shows_429(up: UpMachine) -> None:
    """The hint how to see a limit shows admitted calls and then limited ones."""
    answer = up.pasted("30 calls at once: about 10 are answered 200 (the burst limit), the rest 429:")
    counted = [(int(status), int(count)) for count, status in map(str.split, answer.stdout.splitlines())]
    assert [status for status, _ in counted][:2] == [200, 429], answer
    assert sum(count for _, count in counted) == 30
    sample = up.up["sample"]["traditional"]
    assert until(lambda: predict(up, sample) == 200), "the burst's second passes"


def test_https_works_with_the_printed_authority(up: UpMachine) -> None:
    """A client that is not curl is told what to trust."""
    (line,) = [line for line in up.printed.splitlines() if line.startswith("  https     trust ")]
    url = up.up["gateway_url"].replace("http://127.0.0.1", "https://localhost").rpartition(":")[0]
    port = next(line for line in up.printed.splitlines() if line.startswith("  gateway ")).rpartition(":")[2]
    assert requests.get(f"{url}:{port}/none", verify=line.split()[2], timeout=10).status_code == 404


def test_up_json_has_exactly_the_promised_fields(up: UpMachine) -> None:
    """Whatever must run against a live system reads this file; nobody else may."""
    assert up.up.keys() == UP_JSON
    assert up.up["sample"].keys() == {"traditional", "openai"}
    for sample in up.up["sample"].values():
        assert sample.keys() == {"model", "host", "api_key"}
    assert stat.S_IMODE((up.state / "up.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(up.state.stat().st_mode) == 0o700


def test_up_json_says_the_truth(up: UpMachine) -> None:
    """Every address answers as what it is called."""
    sample = up.up["sample"]["traditional"]
    assert until(lambda: predict(up, sample) == 200)
    assert requests.get(up.up["admin_url"] + "/readyz", timeout=10).json() == {"ready": True}
    assert "tollkeeper_admin_requests" in requests.get(up.up["admin_metrics_url"], timeout=10).text
    assert "decisions_total" in requests.get(up.up["metrics_url"], timeout=10).text
    with redis.Redis.from_url(up.up["redis_url"]) as store:
        assert store.config_get("appendfsync") == {"appendfsync": "always"}
    assert up.up["grpc_target"].startswith("unix:")
    for path in (up.up["grpc_target"].removeprefix("unix:"), up.up["envoy_admin_socket"]):
        assert stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116  a text from the file
    login = {"username": up.up["admin_username"], "password": up.up["admin_password"]}
    assert requests.post(up.up["admin_url"] + "/api/admin/login", json=login, timeout=10).status_code == 200


def test_a_start_raises_no_false_alarm(up: UpMachine) -> None:
    """No part asks another that is not up yet: our logs begin without a warning, and no failure is counted."""
    admin = requests.get(up.up["admin_metrics_url"], timeout=10).text
    assert 'tollkeeper_publications{state="live"}' in admin
    assert 'tollkeeper_publisher_errors_total{cause="proxy"}' not in admin
    for name in ("gate", "admin"):
        start, listening, _ = (up.state / "logs" / f"{name}.log").read_text().partition("listening: ")
        assert listening
        assert " warning " not in start


def test_nothing_listens_beyond_this_machine(up: UpMachine) -> None:
    """All TCP listeners are on loopback, and neither Valkey nor Envoy's admin has one."""
    local = {f"socket:[{inode}]": address for inode, address in listeners().items()}
    heard: dict[str, set[str]] = {}
    for pid, command in up.children.items():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if (address := local.get(os.readlink(entry))) is not None:  # noqa: PTH115  it names no path
                heard.setdefault(command.split()[0].rpartition("/")[2], set()).add(address)
    assert "valkey-server" not in heard
    assert {address.rpartition(":")[0] for found in heard.values() for address in found} == {"0100007F"}
    assert len(heard["envoy"]) == 2


def listeners() -> dict[str, str]:
    """Listening TCP sockets of the machine: inode -> address in hexadecimal."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = words[1]
    return found


def test_the_guides_models_are_ready(up: UpMachine) -> None:
    """The guide starts from here."""
    with requests.Session() as admin:
        login = {"username": up.up["admin_username"], "password": up.up["admin_password"]}
        token = admin.post(up.up["admin_url"] + "/api/admin/login", json=login, timeout=10).json()["token"]
        admin.headers["Authorization"] = f"Bearer {token}"
        for tenant, model, kind in (
            ("tenant-a", "my-model", "traditional"),
            ("tenant-a", "my-llm", "openai"),
            ("tenant-b", "tenant-b-model", "traditional"),
        ):
            url = f"{up.up['admin_url']}/api/models/{model}?tenantId={tenant}"
            shown = admin.get(url, timeout=10).json()
            assert (shown["ready"], shown["type"]) == (True, kind)


def test_the_guides_addresses_work_with_curl_home(up: UpMachine) -> None:
    """Https to the default host and to the custom domain, and the guide's admin port, whatever the real ports are."""
    for url, status in (
        ("https://api.router.inference-in-a-box/models/none", "404"),
        ("https://api.mycompany.com/models/none", "404"),
        ("http://api.router.inference-in-a-box/models/none", "404"),
        ("http://localhost:8085/healthz", "200"),
    ):
        answer = up.guide(f"curl -sS -o /dev/null -w '%{{http_code}}' {url}")
        assert (answer.stdout, answer.stderr) == (status, ""), url


def test_a_refusal_always_reaches_the_guides_curl(up: UpMachine) -> None:
    """With CURL_HOME, each of many calls that are refused before their body has come shows its answer."""
    url = "https://api.router.inference-in-a-box/models/none?call=[1-30]"
    answer = up.guide(f"curl -sS -d '{{}}' -o /dev/null -w '%{{http_version}} %{{http_code}}\n' '{url}' | uniq -c")
    assert (answer.stdout.split(), answer.stderr) == (["30", "1.1", "404"], "")


def test_a_weak_password_is_a_warning(up: UpMachine) -> None:
    """The guide's password is accepted, and said to be weak."""
    assert "warning: the admin password is easy to guess" in up.printed


def test_a_second_machine_on_the_same_folder_is_refused(up: UpMachine) -> None:
    """One sentence that names the first one's process id; the first one goes on."""
    answer = refused(up.state)
    assert answer.returncode == 1
    assert answer.stderr == (
        f"Error: tollkeeper up: another tollkeeper up (pid {up.process.pid}) is using {up.state}\n"
    )
    assert len(up.children) == 6
    assert (up.state / "up.json").exists()


PORTS = ("--gateway-port", "--https-port", "--admin-port", "--metrics-port", "--admin-metrics-port")


@pytest.mark.parametrize("option", PORTS)
def test_a_taken_port_is_told(tmp_path: Path, option: str) -> None:
    """One sentence that names option and port; nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = refused(tmp_path / "state", option, port)
    assert answer.returncode == 1
    assert answer.stderr == (
        f"Error: tollkeeper up: port {port} ({option}) is taken by another program; name another, or 0 for a free one\n"
    )
    assert not processes_logging_to(tmp_path)


def test_two_equal_ports_are_told(tmp_path: Path) -> None:
    """The two options that name one port are named; another program is not blamed."""
    answer = refused(tmp_path / "state", "--gateway-port", "18080", "--https-port", "18080", "--metrics-port", "0")
    assert answer.returncode == 2
    assert "--https-port (TOLLKEEPER_HTTPS_PORT): names the same port as --gateway-port: 18080" in answer.stderr
    assert "another program" not in answer.stderr
    assert "--metrics-port" not in answer.stderr


def test_a_folder_that_cannot_be_written_is_told() -> None:
    """One sentence that names the folder."""
    answer = refused(Path("/proc/tollkeeper"))
    assert answer.returncode == 1
    assert "--state /proc/tollkeeper cannot be written" in answer.stderr
    assert answer.stderr.count("\n") == 1
