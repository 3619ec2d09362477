"""A rolling update loses no call on the real Envoy Gateway either, whose health checks are once a second."""

from __future__ import annotations

import threading

import pytest
from callers import Callers, call_of
from gatewayground import Ground
from gatewaystack import Machine, Wiring, wired
from upmachine import until

from tests.e2e.proxy import HOST, head

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(300)]

CALLERS = 4
DRAIN_S = 3
"""The default: a health check and, where it cannot be patched away, a second until Envoy's threads hear of it."""
PATIENCE_S = 60
ENDINGS_S = 10
"""Long before a reservation's time is over, which is ten minutes."""
BUSY = {"overloaded", "store_timeout"}
"""What a gate says on a machine that is too busy for its patience: not that it goes, nor that it is not ready yet."""


def chat_of(ground: Ground) -> bytes:
    """A call that holds tokens, as it is sent."""
    body = b'{"model": "echo", "max_tokens": 5}'
    fields = (f"host: {HOST}", "content-type: application/json", f"content-length: {len(body)}", ground.with_key)
    return head("POST", "/v1/models/echo/chat/completions", *fields) + body


def all_asked(machine: Machine) -> bool:
    """Whether Envoy asks both gates."""
    return machine.gateway.stat("cluster.*tollkeeper-gate.*membership_healthy$") == len(machine.gates)


@wired(Wiring(gates=2, drain_s=DRAIN_S), "two-gates")
def test_a_rolling_update_loses_no_call(gateway: Machine, ground: Ground) -> None:
    """Gates are drained and replaced one after the other under load: each call is decided by one of them, and of each
    one of them hears how it ended."""  # noqa: D205, D209
    calls = (call_of(ground.publications["iris"], ground.key), chat_of(ground))
    callers = Callers(gateway.ports["http"], CALLERS, *calls)
    assert until(lambda: all_asked(gateway), PATIENCE_S)
    load = threading.Thread(target=callers.call, args=(10**9,), name="callers")
    load.start()
    try:
        for gate in (*gateway.gates, gateway.gates[0]):
            before = callers.statuses[200]
            gate.stop()
            gate.start()
            assert until(lambda: all_asked(gateway), PATIENCE_S)
            assert until(lambda before=before: callers.statuses[200] > before, PATIENCE_S)
    finally:
        callers.stop()
        load.join(PATIENCE_S)
    assert until(lambda: ground.metered().held() == 0, ENDINGS_S), ground.metered().held()
    assert callers.statuses.keys() - {503} == {200}
    assert callers.faults.keys() <= BUSY, callers.faults
    assert callers.faults.total() <= callers.statuses.total() / 100
