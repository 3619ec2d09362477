"""How much passes around an outage: three gates, greedy callers, the bound of docs/decisions/0011-store-away.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from boundedbench import Running, bounded_gate, settle
from faultproxy import fault_proxy
from gatebench import Asker, Catalog, wait_until

from catalog.keys.secrets import Secrets
from catalog.records import Limits
from gate.bounded import BoundedPolicy
from gate.heartbeat import Heartbeat
from protos.external_auth_pb2 import CheckRequest
from ratelimit.windows.budgets import Answer, Draw, Taken

GATES = 3
LIMIT = 30
WINDOW_MS = 1_000
AROUND_S = 1.3
OUTAGE_S = 2.6
SLACK_MS = 5  # a gate tells its own admissions by the earliest that the store's clock can be

Admissions = list[tuple[int, bool]]  # store time in ms, whether the store counted it


def _logged(running: Running, admissions: Admissions) -> None:
    """Have a gate note every admission with its time, and by whom it was counted."""

    def noted(is_stores: bool) -> Callable[[Sequence[Draw], Taken], None]:  # noqa: FBT001
        def note(_charges: Sequence[Draw], taken: Taken) -> None:
            admitted = sum(grant.answer is Answer.ADMITTED for grant in taken.grants)
            admissions.extend([(taken.now_ms, is_stores)] * admitted)

        return note

    running.gate._taker._on_taken = noted(True)
    running.gate._bounded._checker._limiter._on_taken = noted(False)


def _greedy(address: str, ask: CheckRequest, done: threading.Event) -> None:
    asker = Asker(address)
    while not done.is_set():
        asker.ask_many([ask] * 8)
        done.wait(0.005)  # two processors are shared by everybody
    asker.close()


def _most_within(times_ms: list[int], window_ms: int) -> int:
    """The most admissions of any trailing window, both ends included."""
    most, first = 0, 0
    for last, now_ms in enumerate(times_ms):
        while times_ms[first] < now_ms - window_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


def _outage(redis_url: str, catalog: Catalog, secrets: Secrets) -> Admissions:
    """Let callers take all they can from three gates before, during and after an outage; all admissions by time."""
    _, ask = catalog.callable_publication(Limits(burst=LIMIT))
    admissions: Admissions = []
    done = threading.Event()
    with fault_proxy(redis_url, late_s=1) as proxy, ExitStack() as stack:
        gates = [stack.enter_context(bounded_gate(proxy.url, secrets, BoundedPolicy())) for _ in range(GATES)]
        settle(*gates)
        wait_until(lambda: all(running.sample("tollkeeper_gates") == GATES for running in gates))
        for running in gates:
            _logged(running, admissions)
        callers = [threading.Thread(target=_greedy, args=(one.gate.address, ask, done)) for one in gates]
        for caller in callers:
            caller.start()
        for phase_s, then in ((AROUND_S, proxy.hang), (OUTAGE_S, proxy.flow), (AROUND_S, done.set)):
            time.sleep(phase_s)  # the windows are real seconds
            then()
        for caller in callers:
            caller.join()
    return sorted(admissions)


def test_no_window_around_an_outage_holds_more_than_stated(redis_url: str, catalog: Catalog, secrets: Secrets) -> None:
    """At most twice the limit in any window; at most the limit by the store, and at most the limit by all shares."""
    admissions = _outage(redis_url, catalog, secrets)
    by_store = [now_ms for now_ms, is_stores in admissions if is_stores]
    by_gates = [now_ms for now_ms, is_stores in admissions if not is_stores]
    window_ms = WINDOW_MS - SLACK_MS
    assert min(len(by_store), len(by_gates)) >= LIMIT
    assert by_store[0] < by_gates[0] < by_gates[-1] < by_store[-1]
    assert _most_within(by_store, WINDOW_MS) <= LIMIT
    assert _most_within(by_gates, window_ms) <= LIMIT
    assert _most_within([now_ms for now_ms, _ in admissions], window_ms) <= 2 * LIMIT


def test_the_measure_sees_gates_that_do_not_share(
    redis_url: str, catalog: Catalog, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The yardstick itself: where each gate takes the whole limit, the same callers pass the bound."""
    monkeypatch.setattr(Heartbeat, "sharers", 1)
    admissions = _outage(redis_url, catalog, secrets)
    by_gates = [now_ms for now_ms, is_stores in admissions if not is_stores]
    assert _most_within(by_gates, WINDOW_MS) > 2 * LIMIT
