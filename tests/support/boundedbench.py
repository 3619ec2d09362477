"""Gates under the policy ``bounded``: for tests of what passes while a store is away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gatebench import Asker, make_gate, status, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate.assembly import Gate
from gate.bounded import BoundedPolicy
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckRequest
from runtime.grpc.front import QueueLimits

WAIT = QueueLimits(answer_ms=150, wait_ms=2_000)


@dataclass(frozen=True)
class Running:
    """A gate under ``bounded`` and its client."""

    gate: Gate
    asker: Asker
    registry: CollectorRegistry

    def ask(self, request: CheckRequest) -> int:
        """Ask once."""
        return status(self.asker.ask(request))

    def sample(self, name: str) -> float:
        """What a metric says."""
        return self.registry.get_sample_value(name) or 0.0

    @property
    def is_away(self) -> bool:
        """Whether the gate has noticed that the store is away."""
        return self.sample("tollkeeper_store_up") == 0

    def troubles(self) -> tuple[set[str], set[str]]:
        """Codes of problems and warnings."""
        state = self.gate.readiness()
        return {one.code for one in state.problems}, {one.code for one in state.warnings}


@contextmanager
def bounded_gate(url: str | StoreUrls, secrets: Secrets, policy: BoundedPolicy) -> Iterator[Running]:
    """A gate that has settled: ready, and every other gate has had time to count it."""
    with tempfile.TemporaryDirectory(prefix="tk-gate-") as folder:
        registry = CollectorRegistry()
        gate = make_gate(f"unix:{folder}/g.sock", url, secrets, registry, WAIT, bounded=policy)
        gate.start()
        asker = Asker(gate.address)
        try:
            yield Running(gate, asker, registry)
        finally:
            asker.close()
            gate.stop()


def settle(*gates: Running) -> None:
    """Wait until each may go on by itself."""
    for running in gates:
        wait_until(lambda running=running: running.gate.readiness().ready)  # type: ignore[misc]
        wait_until(lambda running=running: running.gate._bounded.heartbeat.sharers is not None)  # type: ignore[misc]
