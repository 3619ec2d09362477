"""The gate or its store away, behind Envoy Gateway: nothing passes, and it heals by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from gatewayground import Ground
from upmachine import until

pytestmark = pytest.mark.gateway

HEALS_S = 30
"""Envoy's connection and the gate's link to its store come back within a second or two; the rest is slack."""


@pytest.fixture
def heals(ground: Ground) -> Iterator[None]:
    """Nothing runs when something is taken away; at the end all of it is back, and calls pass and are settled again."""
    assert _calls(ground) == [200, 200, 200]
    ground.metered().settled()
    yield
    ground.machine.valkey.process.send_signal(signal.SIGCONT)
    if not ground.machine.gate.runs:
        ground.machine.gate.start()
    assert until(lambda: _calls(ground) == [200, 200, 200], HEALS_S), ground.machine.gate.told
    ground.metered().settled()


def _calls(ground: Ground) -> list[int]:
    """The statuses of a traditional call, an openai one by its path, and one by its body."""
    machine, key = ground.machine, ground.with_key
    body = b'{"model": "echo", "max_tokens": 1}'
    return [
        machine.get("/models/iris", key).status,
        machine.post("/v1/models/echo/chat/completions", body, key).status,
        machine.post("/v1/chat/completions", body, key).status,
    ]


@pytest.mark.usefixtures("heals")
def test_without_a_gate_everything_is_closed(ground: Ground) -> None:
    """503 on every kind of route, with a good key, a bad one and none; no server hears of it; then it heals."""
    before = ground.reached()
    ground.machine.gate.kill()
    assert _calls(ground) == [503, 503, 503]
    for headers in ((), ("x-api-key: bad",)):
        assert ground.machine.get("/models/iris", *headers).status == 503
    assert ground.reached() == before
    ground.machine.gate.start()
    assert until(lambda: _calls(ground) == [200, 200, 200], HEALS_S)


@pytest.mark.usefixtures("heals")
def test_while_the_store_hangs_every_answer_is_the_gates_own(ground: Ground) -> None:
    """503 with our body, and no server hears of it; once the store answers again, calls pass."""
    before = ground.reached()
    ground.machine.valkey.process.send_signal(signal.SIGSTOP)
    for _ in range(5):
        answer = ground.machine.get("/models/iris", ground.with_key)
        assert answer.status == 503
        assert answer.json["error"]["code"] in {"store_timeout", "store_unavailable"}
    assert ground.reached() == before
    ground.machine.valkey.process.send_signal(signal.SIGCONT)
    assert until(lambda: _calls(ground) == [200, 200, 200], HEALS_S)
