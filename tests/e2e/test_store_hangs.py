"""A store that hangs, seen by callers of a real Envoy: every answer is ours, in time, and it heals by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from faultproxy import FaultProxy, fault_proxy
from gatebench import Catalog, make_gate, wait_until
from ownvalkey import OwnValkey, own_valkey
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from runtime.grpc.front import QueueLimits
from tests.e2e.proxy import HOST, Envoy, Upstream, options_for, short_folder

CHECK_TIMEOUT_MS = 1_000
"""How long Envoy waits here. The product's waits 200 ms, on machines that have nothing else to do; the gate gives up on
its store after 50 ms, whatever Envoy is told, so that this has as much slack as a busy machine needs."""
CALLS = 200
OUR_CODES = {"store_timeout", "store_unavailable"}


@dataclass(frozen=True)
class Machine:
    """Envoy, a gate and a store that can be hung in two ways."""

    envoy: Envoy
    registry: CollectorRegistry
    valkey: OwnValkey
    proxy: FaultProxy
    key: str

    def call(self) -> tuple[int, str]:
        """Call the model once: status, and the code of a refusal."""
        reply = self.envoy.get("/models/my-model/predict", f"x-api-key: {self.key}")
        return reply.status, "" if reply.status == 200 else reply.json["error"]["code"]

    def timeouts(self) -> float:
        """Batches that waited for the store in vain."""
        name, labels = "tollkeeper_store_errors_total", {"kind": "timeout"}
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def machine(valkey_binary: str) -> Iterator[Machine]:
    """All parts, ready."""
    with short_folder() as folder, ExitStack() as stack:
        valkey = stack.enter_context(own_valkey(valkey_binary))
        proxy = stack.enter_context(fault_proxy(valkey.url, late_s=1))
        upstream = stack.enter_context(Upstream("model"))
        secrets, registry = create_secrets(folder / "secrets.json"), CollectorRegistry()
        catalog = Catalog(valkey.url, secrets)
        catalog.default_url, catalog.default_host = upstream.url, HOST
        catalog.tenant()
        publication = catalog.publication()
        _, key = catalog.key(publication)
        target = f"unix:{folder}/gate.sock"
        gate = make_gate(target, proxy.url, secrets, registry, QueueLimits())
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, target, check_timeout_ms=CHECK_TIMEOUT_MS))
        envoy.publish([publication])
        stack.enter_context(envoy)
        yield Machine(envoy, registry, valkey, proxy, key)


@pytest.mark.parametrize("how", ["half-open", "stopped"])
def test_every_answer_is_ours_while_the_store_hangs(machine: Machine, how: str) -> None:
    """200 calls: each gets our JSON body before Envoy gives up; only the first, on the link and its spare, wait."""
    wait_until(lambda: machine.call() == (200, ""))
    before = machine.timeouts()
    if how == "half-open":
        machine.proxy.hang()
    else:
        machine.valkey.process.send_signal(signal.SIGSTOP)
    answers = [machine.call() for _ in range(CALLS)]
    assert {status for status, _ in answers} == {503}
    assert {code for _, code in answers} <= OUR_CODES
    assert 1 <= sum(code == "store_timeout" for _, code in answers) <= 2
    assert machine.timeouts() - before >= 1
    machine.proxy.flow()
    machine.valkey.process.send_signal(signal.SIGCONT)
    wait_until(lambda: machine.call() == (200, ""), timeout_s=10)
