"""A revoke that was answered is final: two gates full of lanes, under load, admit nothing by that key from then on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gatebench import Asker, Catalog, make_gate, question, status, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from catalog.records import Kind
from gate.assembly import Gate
from protos.external_auth_pb2 import CheckRequest

TRIALS = 20
AFTER = 20
"""Calls that each caller begins after the answer, and that are looked at."""


class Caller:
    """Asks a gate about one key all the time, and notes when each call was begun and what came of it."""

    def __init__(self, gate: Gate, asked: CheckRequest) -> None:
        self._asker, self._asked = Asker(gate.address), asked
        self._ends = threading.Event()
        self.told: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            begun_s = time.monotonic()
            self.told += [(begun_s, status(answer)) for answer in self._asker.ask_many([self._asked] * 4)]

    def begun_after(self, moment_s: float) -> list[int]:
        """What came of the calls that were begun later."""
        return [told for begun_s, told in list(self.told) if begun_s > moment_s]

    def stop(self) -> None:
        """End, and close the connection."""
        self._ends.set()
        self._thread.join(10)
        self._asker.close()


@pytest.fixture
def gates(redis_url: str, secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gate]]:
    """Two gates on one store."""
    folder: Path = tmp_path_factory.mktemp("g")
    gates = [make_gate(f"unix:{folder}/{name}.sock", redis_url, secrets, CollectorRegistry()) for name in "ab"]
    with ExitStack() as stack:
        for gate in gates:
            gate.start()
            stack.callback(gate.stop)
        for gate in gates:
            wait_until(lambda gate=gate: gate.readiness().ready)  # type: ignore[misc]
        yield gates


@pytest.mark.timeout(180)
def test_nothing_is_admitted_by_a_key_after_its_revoke_was_answered(catalog: Catalog, gates: list[Gate]) -> None:
    """Disabled or removed; with the feed's followers and without them."""
    catalog.tenant()
    publication = catalog.publication()
    for trial in range(TRIALS):
        record, text = catalog.key(publication)
        asked = question(key=text, publication=publication)
        with ExitStack() as stack:
            callers = [Caller(gate, asked) for gate in gates]
            for caller in callers:
                stack.callback(caller.stop)
            for gate, caller in zip(gates, callers, strict=True):
                wait_until(lambda caller=caller: 200 in [told for _, told in caller.told])  # type: ignore[misc]
                wait_until(lambda gate=gate: len(gate._checker.lanes) > 0)  # type: ignore[misc]
            if trial % 2:
                catalog.change(record, disabled=True)
            else:
                catalog.remove(Kind.KEY, record)
            answered_s = time.monotonic()
            for caller in callers:
                wait_until(lambda caller=caller, since=answered_s: len(caller.begun_after(since)) >= AFTER)  # type: ignore[misc]
        told = [one for caller in callers for one in caller.begun_after(answered_s)]
        assert set(told) <= {401, 503}, trial
        assert 401 in told
        if trial == TRIALS // 2:
            for gate in gates:
                gate._follower.stop(5)
