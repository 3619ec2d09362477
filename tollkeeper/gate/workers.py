"""The gate as several processes: the parent owns health and metrics, replaces workers that die, and decides nothing."""

from __future__ import annotations

import logging
import sys
from typing import Final

from prometheus_client import CollectorRegistry

from runtime.addresses import Address, numbered
from runtime.http.connections import FACE, refused_connections
from runtime.http.face import ProcessFace, facing, new_registry
from runtime.lifecycle import stop_requested, tell_ready
from runtime.settings import as_text
from runtime.workers.parent import Workers, WorkerSpec, restarts_counter
from runtime.workers.snapshots import Summed, snapshot_of
from tollkeeper.gate.transport import TransportSettings
from tollkeeper.processes import child_environment

APART: Final = frozenset({"tollkeeper_batch_calls", "process_cpu_seconds"})
"""What is wanted for each worker: its share of the calls, the size of its batches, what they cost."""

_log = logging.getLogger(__name__)


async def serve_workers(settings: TransportSettings, count: int, http_listen: Address, drain_s: float) -> None:
    """Run ``count`` workers until a signal, then drain them all: unready first."""
    own, sums, shown = new_registry(), Summed(apart=APART), CollectorRegistry()
    shown.register(sums)
    async with Workers(_spec(settings, count, drain_s), sums, restarts_counter(own)) as workers:

        async def refresh() -> None:
            await workers.refresh()
            sums.update("parent", snapshot_of(own))

        face, refused = ProcessFace(workers.readiness, shown, refresh), refused_connections(own)
        async with facing(face, http_listen, option=FACE, refused=refused.labels(FACE).inc) as http:
            await workers.start()
            _log.info("listening: %d workers, http %s", count, http)
            tell_ready()
            await workers.keep_until(stop_requested())


def _spec(settings: TransportSettings, count: int, drain_s: float) -> WorkerSpec:
    """Each worker is a gate with all the settings but its own address, and alone."""
    text = as_text(settings) | {"workers": "1"}
    return WorkerSpec(
        command=[sys.executable, "-P", "-m", "tollkeeper.gate.worker"],
        environment=child_environment(),
        settings=[text | _addresses(settings, number) for number in range(count)],
        drain_s=drain_s,
    )


def _addresses(settings: TransportSettings, number: int) -> dict[str, str]:
    return {field: str(numbered(address, number)) for field, address in settings.addresses.items()}
