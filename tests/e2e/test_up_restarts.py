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


def test_a_restart_keeps_publications_keys_budgets_and_changes(folder: Path) -> None:
    """What the operator did stays done: published, called, changed, deleted."""
    state = folder / "state"
    with up_machine(state) as first:
        admin = Admin(first)
        limits = {"requestsPerMinute": None, "requestsPerHour": 3, "burstLimit": None}
        config = {"tenantId": "tenant-a", "rateLimiting": limits}
        key = admin("POST", "/api/models/my-model/publish", {"config": config})["apiKey"]
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["status"] == "live")
        assert [predict(first, key, "my-model") for _ in range(2)] == [200, 200]
        admin("DELETE", "/api/models/tenant-b-model?tenantId=tenant-b")
        assert first.stop(signal.SIGINT) == 0
    with up_machine(state) as second:
        admin = Admin(second)
        assert second.up["sample"] == first.up["sample"]
        assert second.up["admin_password"] == first.up["admin_password"]
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["status"] == "live")
        assert [predict(second, key, "my-model") for _ in range(2)] == [200, 429]
        assert until(lambda: admin("GET", "/api/models/my-model/publish")["usage"]["totalRequests"] == 3)
        names = [model["name"] for model in admin("GET", "/api/models")["items"]]
        assert "my-model" in names
        assert "tenant-b-model" not in names


def test_a_key_that_the_operator_rotated_is_left_alone(folder: Path) -> None:
    """A restart kills no key: the sample's is not known to ``up.json`` any more, and the screen says how to get one."""
    state = folder / "state"
    with up_machine(state) as first:
        mine = Admin(first)("POST", "/api/models/iris-sample/publish/rotate-key?tenantId=sample")["apiKey"]
    for _ in range(2):
        with up_machine(state) as again:
            assert again.up["sample"]["traditional"]["api_key"] == ""
            assert again.up["sample"]["openai"] == first.up["sample"]["openai"]
            assert predict(again, mine, "iris-sample") == 200
            assert "A call that is answered 200:" not in again.printed
            assert "A chat over https:" in again.printed
            (command,) = [line for line in again.printed.splitlines() if "/iris-sample/publish/rotate-key" in line]
            token = Admin(again).token
    with up_machine(state) as last:
        answer = last.shell(command.replace(again.up["admin_url"], last.up["admin_url"]), TOKEN=token)
        assert predict(last, json.loads(answer.stdout)["apiKey"], "iris-sample") == 200


def test_a_password_changed_over_the_api_stays(folder: Path) -> None:
    """``up.json`` never tells a password that is none: it tells nothing until one is given, which is then set."""
    state, mine = folder / "state", "my very own password"
    with up_machine(state) as first:
        change = {"currentPassword": first.up["admin_password"], "newPassword": mine}
        Admin(first)("POST", "/api/users/me/password", change)
    with up_machine(state) as second:
        assert second.up["admin_password"] == ""
        assert second.up["sample"] == first.up["sample"]
        assert "(the password was changed over the API)" in second.printed
        second.up["admin_password"] = mine
        assert Admin(second)("GET", "/api/users/me")["name"] == "admin"
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="a given password") as third:
        assert third.up["admin_password"] == "a given password"
        assert Admin(third)("GET", "/api/users/me")["name"] == "admin"


def test_an_unpublished_sample_stays_unpublished(folder: Path) -> None:
    """Neither it nor its deleted model comes back, whether or not ``up.json`` is lost; its examples are not printed."""
    state = folder / "state"
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as first:
        Admin(first)("DELETE", "/api/models/chat-sample/publish?tenantId=sample")
        Admin(first)("DELETE", "/api/models/chat-sample?tenantId=sample")
    for _ in range(2):
        with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as again:
            assert again.up["sample"].keys() == {"traditional"}
            assert "chat-sample was unpublished and stays so" in again.printed
            assert "A chat over https:" not in again.printed
            assert again.pasted("A call that is answered 200:").stdout.split()[1] == "200"
            assert "chat-sample" not in [model["name"] for model in Admin(again)("GET", "/api/models")["items"]]
        (state / "up.json").unlink()


def test_lost_sample_keys_are_rotated(folder: Path) -> None:
    """Without the last ``up.json`` the samples get new keys, and the screen says so; the old ones die."""
    state = folder / "state"
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as first:
        old = first.up["sample"]["traditional"]["api_key"]
    (state / "up.json").unlink()
    with up_machine(state, TOLLKEEPER_ADMIN_PASSWORD="password") as second:
        new = second.up["sample"]["traditional"]["api_key"]
        assert new != old
        assert "that key of iris-sample is new: the one before was lost" in second.printed
        assert (predict(second, new, "iris-sample"), predict(second, old, "iris-sample")) == (200, 401)


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_soon(folder: Path, one: signal.Signals) -> None:
    """In order, bounded, with exit code 0."""
    with up_machine(folder / "state") as machine:
        started_s = time.monotonic()
        assert machine.stop(one) == 0
        assert time.monotonic() - started_s < SOON_S
        assert not machine.children
        assert "Traceback" not in machine.printed


def test_a_signal_during_the_start_stops_everything(folder: Path) -> None:
    """Also what was started half."""
    state = folder / "state"
    with pytest.raises(AssertionError, match="Stopping"), up_machine_stopped_early(state):
        pass
    assert not processes_logging_to(folder)
    assert not (state / "up.json").exists()


def up_machine_stopped_early(state: Path) -> Any:
    """Start a machine and send it SIGTERM once its first child runs."""

    def stop() -> None:
        assert until(lambda: (state / "lock").exists() and bool(processes_logging_to(state / "logs")), 30)
        os.kill(int((state / "lock").read_text()), signal.SIGTERM)

    threading.Thread(target=stop).start()
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
            assert second.up["gateway_url"] == first.up["gateway_url"]
            assert predict(second, second.up["sample"]["traditional"]["api_key"], "iris-sample") == 200
