"""A gate that pauses for a moment (a stopped process, a collection of garbage) is asked again as soon as it is back.

Measured with Envoy 1.40 on two busy cores, four callers, two gates, Check timeout 200 ms: a gate that stood still for
0.3 to 1.5 s cost the four to seven calls that waited for it, the other gate served the rest, and Envoy asked the first
one again 2 to 7 ms after it went on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gatebench import wait_until

from publisher.envoy.gate import GATE
from tests.e2e.test_rolling_update import CALLERS, Fleet, calling, fleet, unix_sockets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CHECK_TIMEOUT = {"check_timeout_ms": 200}
PAUSE_S = 0.4
"""Twice as long as Envoy waits for a Check: calls time out in it."""
BACK_S = 1.5
"""Well below the two seconds for which a gate that failed a call is left out if nothing says that it is back."""


def two_gates(folder: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """Side by side."""
    targets, words, _ = unix_sockets(folder)
    return targets, words, CHECK_TIMEOUT


def one_gate(folder: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """Alone: there is nobody to ask instead, so it is never left out."""
    targets, words, _ = unix_sockets(folder)
    return targets[:1], words, CHECK_TIMEOUT


@contextmanager
def paused(gates: Fleet) -> Iterator[None]:
    """Let the first gate stand still for a moment."""
    process = gates.replicas[0].process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        threading.Event().wait(PAUSE_S)
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("transport", [two_gates, one_gate])
def test_a_gate_that_paused_is_asked_again_at_once(redis_url: str, transport: Any) -> None:
    """It costs the calls that waited for it, and no two seconds in which it is left out."""
    with fleet(redis_url, transport) as gates, calling(gates.unlimited):
        wait_until(lambda: gates.unlimited.statuses[200] > CALLERS)
        with paused(gates):
            left_out = gates.envoy.stat(f"cluster.{GATE}.outlier_detection.ejections_active")
        begun_s = time.monotonic()
        wait_until(gates.all_asked)
        assert time.monotonic() - begun_s < BACK_S
        assert left_out == len(gates.replicas) - 1  # the only one is never left out
        refused, answered = gates.unlimited.statuses[503], gates.unlimited.statuses[200]
        wait_until(lambda: gates.unlimited.statuses[200] > answered + 50 * CALLERS)
        assert refused >= 1
        assert gates.unlimited.statuses[503] <= refused + CALLERS  # those that were under way
