"""The gate process: Check over gRPC, health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic import Field

from catalog.secrets import SecretsError, load_secrets
from extauth.admissions import AdmissionLog
from extauth.gate import Gate
from extauth.store_links import StoreUrls
from extauth.troubles import INSECURE_PLAINTEXT
from runtime.addresses import TcpAddress, UnixAddress, is_loopback
from runtime.clock import SystemClock
from runtime.grpc_front import QueueLimits
from runtime.http import listening, new_registry, process_face
from runtime.lifecycle import CannotStart, stop_requested
from runtime.readiness import Trouble
from runtime.settings import ListenAddress
from tollkeeper.store_settings import StoreSettings

_log = logging.getLogger(__name__)


class GateSettings(StoreSettings):
    """Decide every call: ext_authz Check over gRPC, with health and metrics over HTTP."""

    listen: ListenAddress = UnixAddress(Path("/run/tollkeeper/gate.sock"))
    """Where Envoy asks, in plaintext gRPC: a Unix socket, or a loopback address."""

    http_listen: ListenAddress = TcpAddress("127.0.0.1", 9090)
    """Where /healthz, /readyz and /metrics answer."""

    secrets_file: Path
    """The file of peppers and MAC keys that gate and admin share; `tollkeeper secrets init FILE` makes one."""

    insecure_plaintext: bool = False
    """Allow `--listen` on an address that other machines reach, without TLS: only inside a mesh that encrypts."""

    store_wait_ms: int = Field(default=50, ge=20, le=190)
    """Milliseconds after taking a call at which any wait on the store ends with a 503; keep it below Envoy's 200."""

    drain_s: float = Field(default=0.5, ge=0, le=600)
    """Seconds between turning unready and closing on SIGTERM, so that Envoy's health checks can notice."""

    admission_log: Path | None = None
    """Append one JSON line per admitted call, timed by the store: for proofs and tests, not for production."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Refuse plaintext beyond this machine unless the operator insists."""
        yield from super().conflicts()
        if not is_loopback(self.listen) and not self.insecure_plaintext:
            yield "listen", "is reachable from other machines and has no TLS; add --insecure-plaintext to allow it"


async def serve(settings: GateSettings) -> None:
    """Run until a signal, then drain: unready first, then answer what was taken, then close."""
    registry = new_registry()
    fault = asyncio.Event()
    loop = asyncio.get_running_loop()
    with _admission_log(settings.admission_log) as admission_log:
        gate = _gate(settings, registry, admission_log, on_fault=lambda: loop.call_soon_threadsafe(fault.set))
        warnings = list(_warnings(settings))
        for warning in warnings:
            _log.warning("%s", warning.problem)
        face = process_face(lambda: gate.readiness().warned(warnings), registry)
        async with listening(face, settings.http_listen, option="--http-listen") as http:
            try:
                gate.start()
                _log.info("listening: grpc %s, http %s", gate.address, http)
                await _until_stop(fault)
                gate.drain()
                await asyncio.sleep(settings.drain_s)
            finally:
                await asyncio.to_thread(gate.stop)


def _gate(
    settings: GateSettings,
    registry: CollectorRegistry,
    admission_log: AdmissionLog | None,
    *,
    on_fault: Callable[[], object],
) -> Gate:
    try:
        secrets = load_secrets(settings.secrets_file)
    except SecretsError as error:
        raise CannotStart(str(error)) from error
    return Gate(
        target=str(settings.listen),
        stores=StoreUrls(settings.records, settings.budgets, settings.cells),
        secrets=secrets,
        clock=SystemClock(),
        registry=registry,
        on_fault=on_fault,
        limits=QueueLimits(answer_ms=settings.store_wait_ms),
        on_taken=admission_log,
    )


def _warnings(settings: GateSettings) -> Iterator[Trouble]:
    """Tell what the operator insisted on."""
    if settings.insecure_plaintext and not is_loopback(settings.listen):
        problem = f"--insecure-plaintext: {settings.listen} takes keys unencrypted from other machines"
        yield INSECURE_PLAINTEXT.found(problem)


@contextlib.contextmanager
def _admission_log(path: Path | None) -> Iterator[AdmissionLog | None]:
    if path is None:
        yield None
        return
    with AdmissionLog(path) as log:
        yield log


async def _until_stop(fault: asyncio.Event) -> None:
    """Wait for a signal; a gate that can answer no more ends the process, so that its supervisor starts a new one."""
    faulted = asyncio.create_task(fault.wait(), name="gate-fault")
    stop = asyncio.create_task(stop_requested(), name="gate-stop")
    done, pending = await asyncio.wait({faulted, stop}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if faulted in done:
        raise CannotStart("the gate's batch loop ended by a fault of its own; see the log above")
