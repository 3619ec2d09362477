"""``tollkeeper up`` ends well whatever ends it, and starts again with everything it had."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from upmachine import LAST_LINE, UpMachine, processes_logging_to, until, up_machine

from tests.e2e.proxy import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("nothing_is_left")]

SOON_S = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for one machine."""
    with short_folder() as made:
        yield made


@pytest.fixture
def nothing_is_left(folder: Path) -> Iterator[None]:
    """No process survives its machine."""
    yield
    assert until(lambda: not processes_logging_to(folder))


class Admin:
    """The machine's admin API, logged in."""

    def __init__(self, machine: UpMachine) -> None:
        self._url = machine.up["admin_url"]
        login = {"username": machine.up["admin_username"], "password": machine.up["admin_password"]}
        self.token: str = self("POST", "/api/admin/login", login)["token"]
        self._headers = {"Authorization": f"Bearer {self.token}"}

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = getattr(self, "_headers", {})
        answer = requests.request(method, self._url + path, json=body, headers=headers, timeout=15)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None


def predict(machine: UpMachine, key: str, model: str) -> int:
    """Return the status of one call."""
    url = f"{machine.up['gateway_url']}/models/{model}/predict"
    headers = {"Host": "api.router.inference-in-a-box", "X-API-Key": key}
    return requests.post(url, json={"instances": [[1.0]]}, headers=headers, timeout=10).status_code


def stop(machine: UpMachine, one: signal.Signals) -> None:
    """A signal stops everything soon: in order, bounded, with exit code 0."""
    started_s = time.monotonic()
    assert machine.stop(one) == 0
    assert time.monotonic() - started_s < SOON_S
    assert not machine.children
    assert "Traceback" not in machine.printed


def test_what_the_operator_did_stays_done(folder: Path) -> None:
    """Published, called, deleted, a key rotated, the password changed: over restarts, whichever signal ended it."""
    state, password = folder / "state", "my very own password"
    with up_machine(state) as first:
        admin = Admin(first)
        limits = {"requestsPerMinute": None, "requestsPerHour": 3, "burstLimit": None}
        config = {"tenantId": "tenant-a", "rateLimiting": limits}
        key = admin("POST", "/api/models/my-model/publish", {"config": config})["apiKey"]
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["status"] == "live")
        assert [predict(first, key, "my-model") for _ in range(2)] == [200, 200]
        admin("DELETE", "/api/models/tenant-b-model?tenantId=tenant-b")
        rotated = admin("POST", "/api/models/iris-sample/publish/rotate-key?tenantId=sample")["apiKey"]
        change = {"currentPassword": first.up["admin_password"], "newPassword": password}
        admin("POST", "/api/users/me/password", change)
        stop(first, signal.SIGINT)
    with up_machine(state) as second:
        assert_no_password_is_told(second)
        second.up["admin_password"] = password
        admin = Admin(second)
        assert admin("GET", "/api/users/me")["name"] == "admin"
        assert_key_is_left_alone(first, second, rotated)
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["status"] == "live")
        assert [predict(second, key, "my-model") for _ in range(2)] == [200, 429]
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["usage"]["totalRequests"] == 3)
        names = [model["name"] for model in admin("GET", "/api/models")["items"]]
        assert "my-model" in names
        assert "tenant-b-model" not in names
        stop(second, signal.SIGTERM)
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="a given password") as third:
        assert third.up["admin_password"] == "a given password"
        admin = Admin(third)
        assert admin("GET", "/api/users/me")["name"] == "admin"
        command = assert_key_is_left_alone(first, third, rotated)
        answer = third.shell(command, TOKEN=admin.token)
        assert predict(third, json.loads(answer.stdout)["apiKey"], "iris-sample") == 200


def assert_no_password_is_told(machine: UpMachine) -> None:
    """``up.json`` never tells a password that is none: it tells nothing until one is given, which is then set."""
    assert machine.up["admin_password"] == ""
    assert "(the password was changed over the API)" in machine.printed


def assert_key_is_left_alone(before: UpMachine, machine: UpMachine, key: str) -> str:
    """A restart kills no key: the sample's is not known to ``up.json`` any more; what the screen says to get one."""
    assert machine.up["sample"]["traditional"]["api_key"] == ""
    assert machine.up["sample"]["openai"] == before.up["sample"]["openai"]
    assert predict(machine, key, "iris-sample") == 200
    assert "A call that is answered 200:" not in machine.printed
    assert "A chat over https:" in machine.printed
    (command,) = [line for line in machine.printed.splitlines() if "/iris-sample/publish/rotate-key" in line]
    return command


def test_samples_whose_keys_are_lost_or_that_were_unpublished(folder: Path) -> None:
    """Neither an unpublished one nor its model comes back; without the last ``up.json`` the other gets a new key."""
    state = folder / "state"
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as first:
        old = first.up["sample"]["traditional"]["api_key"]
        Admin(first)("DELETE", "/api/models/chat-sample/publish?tenantId=sample")
        Admin(first)("DELETE", "/api/models/chat-sample?tenantId=sample")
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as second:
        assert_chat_sample_stays_away(second)
        assert second.up["sample"]["traditional"] == first.up["sample"]["traditional"]
    (state / "up.json").unlink()
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as third:
        assert_chat_sample_stays_away(third)
        new = third.up["sample"]["traditional"]["api_key"]
        assert new != old
        assert "that key of iris-sample is new: the one before was lost" in third.printed
        assert (predict(third, new, "iris-sample"), predict(third, old, "iris-sample")) == (200, 401)


def assert_chat_sample_stays_away(machine: UpMachine) -> None:
    """Its examples are not printed either."""
    assert machine.up["sample"].keys() == {"traditional"}
    assert "chat-sample was unpublished and stays so" in machine.printed
    assert "A chat over https:" not in machine.printed
    assert machine.pasted("A call that is answered 200:").stdout.split()[1] == "200"
    assert "chat-sample" not in [model["name"] for model in Admin(machine)("GET", "/api/models")["items"]]


def test_a_signal_during_the_start_stops_everything(folder: Path) -> None:
    """Also what was started half."""
    state = folder / "state"
    with pytest.raises(AssertionError, match="Stopping"), up_machine_stopped_early(state):
        pass
    assert not processes_logging_to(folder)
    assert not (state / "up.json").exists()


def up_machine_stopped_early(state: Path) -> Any:
    """Start a machine and send it SIGTERM once its first child runs."""

    def stop_early() -> None:
        assert until(lambda: (state / "lock").exists() and bool(processes_logging_to(state / "logs")), 30)
        os.kill(int((state / "lock").read_text()), signal.SIGTERM)

    threading.Thread(target=stop_early).start()
    return up_machine(state)


@pytest.mark.parametrize("name", ["tollkeeper gate", "valkey-server", "envoy "])
def test_a_child_that_dies_stops_the_rest(folder: Path, name: str) -> None:
    """The operator is told which one, with its last words, and the exit code is not 0."""
    with up_machine(folder / "state") as machine:
        victim = next(pid for pid, command in machine.children.items() if name in command)
        os.kill(victim, signal.SIGKILL)
        assert machine.process.wait(SOON_S) == 1
        assert "was killed by SIGKILL, so everything was stopped" in machine.printed.partition(LAST_LINE)[2]
        assert "Traceback" not in machine.printed.partition(LAST_LINE)[2].partition("ends with")[0]
        assert not machine.children


def test_a_killed_machine_leaves_no_child_and_starts_again(folder: Path) -> None:
    """Kill -9 of the parent: its children go too, its lock and its process id are stale, its keys are kept."""
    state = folder / "state"
    with up_machine(state) as first:
        first.process.kill()
        first.process.wait()
        ports = {"TOLLKEEPER_GATEWAY_PORT": first.up["gateway_url"].rpartition(":")[2]}
        with up_machine(state, **ports) as second:
            assert second.up["sample"] == first.up["sample"]
            assert second.up["admin_password"] == first.up["admin_password"]
            assert second.up["gateway_url"] == first.up["gateway_url"]
            assert predict(second, second.up["sample"]["traditional"]["api_key"], "iris-sample") == 200
