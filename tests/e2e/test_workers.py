"""A gate of several workers behind a real Envoy: their shares, what a killed one costs, and TLS between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from authority import Authority
from callers import Callers, call_of
from gatebench import Catalog, wait_until
from gaterow import GateRow, gate_row, kill
from upmachine import up_machine

from catalog.keys.secrets import create_secrets
from catalog.records import PublicationRecord
from publisher.envoy.gate import GateTls
from tests.e2e.proxy import HOST, Envoy, Upstream, options_for, short_folder

BATCH_CALLS = "tollkeeper_batch_calls_sum"
CALLERS = 16


@dataclass
class Machine:
    """A gate of two workers behind an Envoy with one thread, and a key for its one publication."""

    row: GateRow
    envoy: Envoy
    publication: PublicationRecord
    key: str

    def callers(self) -> Callers:
        """Those who call it."""
        return Callers(self.envoy.ports["http"], CALLERS, call_of(self.publication, self.key))

    def shares(self) -> list[float]:
        """What each worker has decided, in calls."""
        return [self.row.total(BATCH_CALLS, worker=str(number)) for number in range(2)]


def machine(redis_url: str, folder: Path, *options: str, **of_envoy: Any) -> Iterator[Machine]:
    """Start everything."""
    catalog = Catalog(redis_url, create_secrets(folder / "secrets.json"))
    catalog.default_host = HOST
    with Upstream("model") as upstream, gate_row(redis_url, folder / "secrets.json", "--workers", "2", *options) as row:
        catalog.default_url = upstream.url
        catalog.tenant()
        publication = catalog.publication()
        _, key = catalog.key(publication)
        envoy = Envoy(options_for(folder, *row.targets(), **of_envoy))
        envoy.publish([publication])
        with envoy:
            yield Machine(row, envoy, publication, key)


@pytest.fixture
def two_workers(redis_url: str) -> Iterator[Machine]:
    """Two workers on Unix sockets."""
    with short_folder() as folder:
        yield from machine(redis_url, folder, "--store-wait-ms", "190")


def test_calls_spread_over_the_workers_and_are_all_counted(two_workers: Machine) -> None:
    """2,000 calls through one Envoy thread: each worker decides 40 to 60 % of them, and the sum is what was sent."""
    callers = two_workers.callers()
    before = two_workers.row.total("tollkeeper_decisions_total")
    callers.call(2_000)
    assert callers.statuses.keys() <= {200, 503}, callers.statuses  # 503: a machine too busy for our own patience
    assert callers.statuses[200] >= 1_900
    assert two_workers.row.total("tollkeeper_decisions_total") - before == 2_000
    assert sum(two_workers.shares()) == 2_000
    for share in two_workers.shares():
        assert 800 <= share <= 1_200


def test_a_killed_worker_costs_the_calls_in_flight(two_workers: Machine) -> None:
    """Under load: 503 for what it held, the other takes over, it comes back to its share, no total goes down."""
    callers = two_workers.callers()
    load = threading.Thread(target=callers.call, args=(10**9,), name="callers")
    load.start()
    try:
        totals: list[float] = []
        wait_until(lambda: min(two_workers.shares()) > 200, timeout_s=60)
        _watch(two_workers, totals)
        kill(two_workers.row.pids()[0])
        wait_until(
            lambda: _watch(two_workers, totals) and two_workers.row.total("tollkeeper_worker_restarts_total") == 1
        )
        wait_until(lambda: two_workers.row.ready()["ready"] and _watch(two_workers, totals), timeout_s=60)
        away = two_workers.shares()
        wait_until(lambda: _gained(two_workers, away, 50), timeout_s=60)  # Envoy has seen that it is back
        back = two_workers.shares()
        wait_until(lambda: _watch(two_workers, totals) and _gained(two_workers, back, 300), timeout_s=60)
        gains = [now - then for now, then in zip(two_workers.shares(), back, strict=True)]
    finally:
        callers.stop()
        load.join(60)
    assert totals == sorted(totals)
    assert callers.statuses.keys() <= {200, 503}
    in_flight_and_after = 2 * CALLERS  # those it held, and those that met its empty address before it was left out
    assert callers.statuses[503] <= in_flight_and_after, callers.statuses
    assert 0.4 <= gains[0] / sum(gains) <= 0.6


def _watch(machine: Machine, totals: list[float]) -> bool:
    totals.append(machine.row.total("tollkeeper_decisions_total"))
    return True


def _gained(machine: Machine, since: Sequence[float], count: int) -> bool:
    return machine.shares()[0] - since[0] > count


def test_envoy_and_gate_show_each_other_certificates(redis_url: str) -> None:
    """Over mTLS calls pass; an Envoy with a stranger's certificate, or in plaintext, gets none through."""
    with short_folder() as folder:
        ours, foreign = Authority(folder, "ours"), Authority(folder, "foreign")
        gate, good, bad = ours.give("gate.internal"), ours.give("envoy"), foreign.give("envoy")
        tls = ("--tls-certificate", str(gate[0]), "--tls-key", str(gate[1]), "--tls-client-ca", str(ours.ca))
        named = GateTls(ca=str(ours.ca), name="gate.internal", certificate=str(good[0]), private_key=str(good[1]))
        options = ("--transport", "grpcio", "--listen", "127.0.0.1:0", *tls)
        for made in machine(redis_url, folder, *options, gate_tls=named):
            callers = made.callers()
            callers.call(50)
            assert callers.statuses == {200: 50}
            strange = GateTls(ca=str(ours.ca), name="gate.internal", certificate=str(bad[0]), private_key=str(bad[1]))
            for other in (strange, None, GateTls(ca=str(foreign.ca), name="gate.internal")):
                assert _status(folder, made, other) == 503


def _status(folder: Path, made: Machine, tls: GateTls | None) -> int:
    """What a call gets through another Envoy with these means."""
    options = options_for(folder, *made.row.targets(), gate_tls=tls, admin_socket=f"{folder}/other.sock")
    with Envoy(options) as envoy:
        return envoy.get(made.publication.path, f"x-api-key: {made.key}").status


@pytest.mark.slow
def test_up_with_two_workers() -> None:
    """``tollkeeper up --workers 2``: the printed call works through either worker, and nothing is left behind."""
    with short_folder() as folder, up_machine(folder / "state", "--workers", "2") as machine:
        told = requests.get(machine.up["metrics_url"].replace("/metrics", "/readyz"), timeout=10).json()
        assert [Path(one["listen"]).name for one in told["workers"]] == ["gate-0.sock", "gate-1.sock"]
        assert machine.up["grpc_target"].endswith("gate-0.sock")
        sample = machine.up["sample"]["traditional"]
        call = f"curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'x-api-key: {sample['api_key']}' {_url(machine.up)}"
        assert machine.shell(f"for i in 1 2 3 4; do {call}; done").stdout.split() == ["200"] * 4
        assert machine.stop() == 0
        assert not machine.children


def _url(up: dict[str, str | dict[str, dict[str, str]]]) -> str:
    sample = up["sample"]["traditional"]  # type: ignore[index]
    return f"-H 'host: {sample['host']}' {up['gateway_url']}/models/{sample['model']}"  # type: ignore[index]
