"""Budgets on the real clock: real Envoy, two gate processes, one Valkey, parallel callers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from gatebench import Catalog, wait_until

from catalog.keys.secrets import create_secrets
from catalog.records import Limits
from publisher.envoy.bootstrap import BootstrapOptions
from tests.e2e.proxy import HOST, Envoy, Upstream, head, short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SENDERS = 4
RUN_S = 80  # a minute's limit is used up within 15 s, freed after 61 and used up again
PAUSE_S = 0.004  # of a caller who was refused: four of them still ask more often than a bucket of 50 ms ends
WINDOWS_MS = {"burst": 1_000, "per_minute": 60_000}


@contextmanager
def gate_process(folder: Path, number: int, redis_url: str) -> Iterator[str]:
    """One `tollkeeper gate` with an admission log; the target Envoy dials."""
    target = f"unix:{folder}/gate-{number}.sock"
    http = f"{folder}/http-{number}.sock"
    command = [sys.executable, "-m", "tollkeeper", "gate", "--redis-url", redis_url, "--listen", target]
    command += ["--http-listen", f"unix:{http}", "--secrets-file", f"{folder}/secrets.json", "--drain-s", "0"]
    command += ["--admission-log", f"{folder}/admissions-{number}.jsonl", "--store-wait-ms", "150"]
    with (folder / f"gate-{number}.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until(lambda: _ready(http), timeout_s=30)
            yield target
        finally:
            process.terminate()
            process.wait(20)


def _ready(path: str) -> bool:
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", path, "http://gate/readyz"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout == "200"


class Machine:
    """Envoy with two gates before one model server."""

    def __init__(self, folder: Path, envoy: Envoy, catalog: Catalog) -> None:
        self.folder = folder
        self.envoy = envoy
        self.catalog = catalog

    def admissions(self) -> dict[str, list[int]]:
        """Subject -> store times (ms) at which it was charged, from both gates' logs."""
        times: dict[str, list[int]] = defaultdict(list)
        for log in self.folder.glob("admissions-*.jsonl"):
            for line in log.read_text().splitlines():
                entry = json.loads(line)
                for subject in entry["subjects"]:
                    times[subject] += [entry["now_ms"]] * entry["cost"]
        return {subject: sorted(found) for subject, found in times.items()}


@pytest.fixture
def machine(redis_url: str) -> Iterator[Machine]:
    """A machine whose catalog holds tenant-a; publications are put by the test before the first call."""
    with short_folder() as folder, ExitStack() as stack:
        secrets = create_secrets(folder / "secrets.json")
        catalog = Catalog(redis_url, secrets)
        catalog.tenant()
        upstream = stack.enter_context(Upstream("model"))
        catalog.default_url, catalog.default_host = upstream.url, HOST
        gates = [stack.enter_context(gate_process(folder, number, redis_url)) for number in (0, 1)]
        options = BootstrapOptions(
            folder=str(folder),
            admin_socket=f"{folder}/a.sock",
            gate=gates,
            endings=[f"unix:{folder}/endings.sock"],
            http_port=0,
        )
        yield Machine(folder, Envoy(options), catalog)


def most_in_any_window(times_ms: list[int], window_ms: int) -> int:
    """The most admissions in any closed trailing window of this length."""
    most = first = 0
    for last, time_ms in enumerate(times_ms):
        while times_ms[first] < time_ms - window_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_two_gates_never_admit_more_than_the_limit_in_any_window(machine: Machine) -> None:
    """Parallel callers want all they can get, of two minutes: no trailing second or minute exceeds its limit."""
    limits = {"publication": Limits(burst=10, per_minute=150), "key": Limits(burst=4, per_minute=100)}
    publication = machine.catalog.publication(limits=limits["publication"])
    keys = [machine.catalog.key(publication, limits=limits["key"]) for _ in range(2)]
    machine.envoy.publish([publication])
    statuses: dict[int, int] = defaultdict(int)
    with machine.envoy:
        until_s = time.monotonic() + RUN_S
        callers = [
            threading.Thread(target=_greedy, args=(machine.envoy, text, until_s, statuses))
            for _, text in keys
            for _ in range(SENDERS // 2)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    admitted = machine.admissions()
    assert len(admitted) == 3
    lost = len(admitted[f"p:{publication.uid}"]) - statuses[200]  # counted, and its answer came too late
    assert 0 <= lost <= sum(calls for status, calls in statuses.items() if status >= 500)
    assert statuses[429] > statuses[200]
    assert set(statuses) <= {200, 429, 503}
    for subject, times_ms in admitted.items():
        own = limits["publication" if subject.startswith("p:") else "key"]
        for name, window_ms in WINDOWS_MS.items():
            assert most_in_any_window(times_ms, window_ms) <= getattr(own, name), (subject, name)
    both = [line for log in machine.folder.glob("admissions-*.jsonl") if (line := log.read_text())]
    assert len(both) == 2, "both gates must have admitted calls"
    assert len(admitted[f"p:{publication.uid}"]) >= 150 * 60 // 61 * 2, "the limit must have been used to the full"


def _greedy(envoy: Envoy, text: str, until_s: float, statuses: dict[int, int]) -> None:
    request = head("GET", "/models/my-model", f"host: {HOST}", f"x-api-key: {text}")
    while time.monotonic() < until_s:
        status = envoy.send(request).status
        statuses[status] += 1
        if status != 200:
            time.sleep(PAUSE_S)


def test_a_lone_caller_who_waits_as_told_is_always_admitted(machine: Machine) -> None:
    """retry-after-ms counts from the receipt of the 429: ten times in a row the next call passes."""
    publication = machine.catalog.publication(limits=Limits(burst=1))
    _, text = machine.catalog.key(publication)
    machine.envoy.publish([publication])
    request = head("GET", "/models/my-model", f"host: {HOST}", f"x-api-key: {text}")
    with machine.envoy:
        assert _eventually(lambda: machine.envoy.send(request).status == 200)
        for _ in range(10):
            refused = machine.envoy.send(request)
            if refused.status == 200:  # the last pause had been long enough for another one
                refused = machine.envoy.send(request)
            assert refused.status == 429
            time.sleep(int(refused.headers["retry-after-ms"]) / 1000)
            assert machine.envoy.send(request).status == 200


def _eventually(condition: Callable[[], bool]) -> bool:
    wait_until(condition, timeout_s=20)
    return True


def test_the_window_counter_of_this_test_counts() -> None:
    """Three in a closed window of ten, two where the third is a millisecond later."""
    assert most_in_any_window([0, 5, 10], 10) == 3
    assert most_in_any_window([0, 5, 11], 10) == 2
