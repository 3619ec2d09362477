"""Fifty publications come and go on the real Envoy Gateway while others are called: nobody loses a call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gatewayground import Ground
from gatewaystack import MANY, Machine
from upmachine import until

from tests.e2e.proxy import Reply, head

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(600)]

TENANT, HOST = "churn", "churn.example.test"
BODY = b'{"instances": [[1.0]]}'
LIVE_S = 240


@contextmanager
def calls_all_the_time(ground: Ground) -> Iterator[Counter[int]]:
    """One keep-alive connection of calls, another of calls by the body's model; their statuses. 0: it was lost."""
    statuses: Counter[int] = Counter()
    stopping = threading.Event()
    body = b'{"model": "echo"}'
    target = "host: api.example.test", ground.with_key
    requests = [
        head("GET", "/models/iris", *target),
        head("POST", "/v1/chat/completions", *target, "content-type: application/json", f"content-length: {len(body)}")
        + body,
    ]

    def call(request: bytes) -> None:
        with ground.machine.connect() as connection:
            while not stopping.wait(0.02):
                connection.sendall(request)
                statuses[Reply.read(connection).status] += 1

    threads = [threading.Thread(target=call, args=(one,), name="steady-caller") for one in requests]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)


def _is_live(machine: Machine, name: str) -> bool:
    return machine.shown(TENANT, name)["status"] == "live"


def test_fifty_publications_come_and_go_without_a_failed_call(ground: Ground) -> None:
    """Each is called once it is live and gone once it is unpublished; no listener changes, and no connection ends."""
    machine = ground.machine
    changed = machine.gateway.stat("listener_manager.listener_(modified|removed|added)$")
    with calls_all_the_time(ground) as statuses:
        made = {
            name: machine.publish(TENANT, name, machine.servers["kserve"], live=False, publicHostname=HOST)
            for name in MANY
        }
        for name, one in made.items():
            assert until(lambda name=name: _is_live(machine, name), LIVE_S, every_s=0.2), name
            path, key = f"{one['externalPath']}/predict", f"x-api-key: {one['apiKey']}"
            assert machine.post(path, BODY, key, host=HOST).json["predictions"]
        during = statuses.total()
        for name in MANY:
            machine.unpublish(TENANT, name)
        paths = [f"{one['externalPath']}/predict" for one in made.values()]
        assert until(
            lambda: {machine.post(path, BODY, host=HOST).status for path in paths} == {404}, LIVE_S, every_s=0.5
        )
    assert statuses.total() > during > 100
    assert set(statuses) == {200}, statuses
    assert machine.gateway.stat("listener_manager.listener_(modified|removed|added)$") == changed
