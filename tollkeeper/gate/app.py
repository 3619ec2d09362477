"""The gate process: Check over gRPC, health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, Field

from catalog.cell_number import CellsDifferError
from catalog.keys.live_secrets import LiveSecrets
from catalog.keys.metrics import SecretsMetrics
from catalog.keys.secrets import SecretsError
from extauth.credentials.carriers import KEY_HEADERS, MOST_KEY_HEADERS, PROBES_HEADER
from extauth.records.allowances import PER_MINUTE, Allowances
from gate.admissions import AdmissionLog
from gate.agreed import require_cells
from gate.assembly import SERVICES, Gate
from gate.bounded import BoundedPolicy
from gate.formats import NEWEST
from gate.links import StoreUrls
from ratelimit.descriptors.reading import DescriptorsError
from ratelimit.descriptors.watching import DescriptorFile
from ratelimit.tokens.meter import OWN_METER
from ratelimit.windows.budgets import MAX_UNITS
from runtime.addresses import MAX_PORT, Address, TcpAddress, UnixAddress
from runtime.clock import SystemClock
from runtime.collector import spare_what_lives
from runtime.http.connections import FACE, refused_connections
from runtime.http.face import ProcessFace, facing, new_registry
from runtime.lifecycle import CannotStart, running, stop_requested, tell_ready
from runtime.readiness import Readiness
from runtime.settings import ListenAddress, Metavar, Words, option_of
from tollkeeper.gate.transport import Transport, TransportSettings, warnings_of, with_transport
from tollkeeper.gate.workers import serve_workers
from tollkeeper.publishing.usage_metadata import UsageMetadata
from tollkeeper.store_settings import StoreSettings

_log = logging.getLogger(__name__)


def _known(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not SERVICES.keys() >= set(value):
        raise ValueError(f"must be {', '.join(SERVICES)}, or one of them")
    return tuple(name for name in SERVICES if name in value)


_HEADER: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OTHERS: Final = (
    *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "host"),
    *("transfer-encoding", "x-key-id", "x-request-id", "x-tenant-id"),
)
_OTHERS_BEGIN: Final = ("x-envoy-", "x-tollkeeper-")
"""Headers that say something else; all of which keys may come by are taken off every call."""


def _may_bring_keys(name: str) -> bool:
    return bool(_HEADER.fullmatch(name)) and name not in _OTHERS and not name.startswith(_OTHERS_BEGIN)


def _key_headers(value: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.lower() for name in value))
    if not all(map(_may_bring_keys, names)):  # which is not told: it may be a secret
        raise ValueError(
            "must be names of headers (letters, digits, single dashes) that say nothing else: not "
            + ", ".join((*_OTHERS, *(f"{begin}*" for begin in _OTHERS_BEGIN)))
        )
    if PROBES_HEADER not in names or len(names) > MOST_KEY_HEADERS:
        raise ValueError(f"must name X-API-Key, by which the publisher asks, and {MOST_KEY_HEADERS} headers at most")
    return names


class GateSettings(TransportSettings, StoreSettings):
    """Decide every call: ext_authz Check over gRPC, with health and metrics over HTTP."""

    http_listen: ListenAddress = TcpAddress("127.0.0.1", 9090)
    """Where /healthz, /readyz and /metrics answer."""

    secrets_file: Path
    """The file of peppers and MAC keys that gate and admin share; `tollkeeper secrets init FILE` makes one."""

    workers: int = Field(default=1, ge=1, le=64)
    """How many processes decide. Each has an address: `gate.sock` becomes `gate-0.sock`…, port P becomes P, P+1…"""

    services: Annotated[Words, AfterValidator(_known), Metavar("check,ratelimit")] = tuple(SERVICES)
    """What Envoy may ask on `--listen`: `check` decides calls, `ratelimit` limits others (and hears older Envoys)."""

    gateway_namespace: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Namespace of the HTTPRoutes that Envoy Gateway's calls are told apart by; without it, plain Envoy's alone are."""

    key_headers: Annotated[Words, AfterValidator(_key_headers)] = KEY_HEADERS
    """Headers by which a key may come, `authorization` as a Bearer: the first whose value has a key's form counts."""

    usage_metadata: UsageMetadata = OWN_METER
    """Envoy's dynamic metadata that says what an answer cost, where another filter counts tokens."""

    lists_per_minute: int = Field(default=PER_MINUTE, ge=1, le=MAX_UNITS)
    """How often a key may ask which models there are, in any minute; no budget of calls has less by it."""

    errors_per_minute: int = Field(default=PER_MINUTE, ge=1, le=MAX_UNITS)
    """Bad calls of a good key (400 to 415) that are answered as such in any minute; beyond it they are 429."""

    drain_s: float = Field(default=3, ge=0, le=600)
    """Seconds between turning unready and closing on SIGTERM, so that Envoy notices: a health check and a second."""

    store_failure: Literal["deny", "bounded"] = "deny"
    """While a store is away: `deny` answers 503; `bounded` lets known keys go on under a share of the limits."""

    bounded_for_s: float = Field(default=600, ge=1, le=3_600)
    """Seconds without the store that `bounded` goes on, all outages together; ten seconds with it give one back."""

    gate_replicas: int = Field(default=1, ge=1, le=10_000)
    """`bounded` divides each limit by the number of gates that said they are alive, and by this if it is more."""

    store_format: Literal["auto", "1"] = "auto"
    """Format of stored budgets: `auto` the newest that all gates read, `1` as before, on every gate, for a rollback."""

    descriptors: Path | None = None
    """A YAML file of limits in envoyproxy/ratelimit's format, to serve as a rate-limit service."""

    descriptors_failure: Literal["deny", "allow"] = "deny"
    """What calls about these limits are told while the store is away: `deny` over the limit, `allow` within it."""

    admission_log: Path | None = None
    """Append one JSON line per admitted call, timed by the store: for proofs and tests, not for production."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Each worker needs a port."""
        yield from super().conflicts()
        for field, address in self.addresses.items():
            if isinstance(address, TcpAddress) and address.port + self.workers - 1 > MAX_PORT:
                yield "workers", f"need as many ports from {address.port} on, and the last is {MAX_PORT}"
            if field != "listen" and _share(self.listen, address, self.workers):
                yield field, "needs an address for each worker; some would be those of --listen"
        if self.descriptors is not None and "ratelimit" not in self.services:
            yield "descriptors", "needs the service ratelimit; --services leaves it out"


def _share(one: Address, other: Address, workers: int) -> bool:
    """Whether two addresses, with those of further workers, have one in common."""
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    is_near = abs(one.port - other.port) < workers and one.port > 0 and other.port > 0
    return is_near and (one.host == other.host or "0.0.0.0" in {one.host, other.host} or "::" in {one.host, other.host})  # noqa: S104  compared  # nosec B104


async def serve(settings: GateSettings) -> None:
    """Run until a signal, then drain: unready first, then answer what was taken, then close."""
    await _require_cells(settings)
    if settings.workers > 1:
        await serve_workers(settings, settings.workers, settings.http_listen, settings.drain_s)
    else:
        await _serve_alone(settings)


async def _require_cells(settings: GateSettings) -> None:
    """See that the stores have agreed on the number of cells given, if they can be asked; raises ``CannotStart``."""
    try:
        await asyncio.to_thread(require_cells, _urls(settings), SystemClock())
    except CellsDifferError as error:
        raise CannotStart(error.sentence) from error


def _urls(settings: GateSettings) -> StoreUrls:
    return StoreUrls(settings.records, settings.budgets, settings.cells, settings.store_wait_ms)


async def _serve_alone(settings: GateSettings) -> None:
    registry = new_registry()
    with making_gate(settings, registry) as made:
        face, refused = ProcessFace(made.readiness, registry), refused_connections(registry)
        async with (
            facing(face, settings.http_listen, option=FACE, refused=refused.labels(FACE).inc) as http,
            running(made.keep_secrets(), name="secrets-watch"),
            running(made.keep_descriptors(), name="descriptors-watch"),
        ):
            try:
                made.gate.start()
                spare_what_lives()
                _log.info("listening: grpc %s, http %s", ", ".join(made.bound().values()), http)
                tell_ready()
                await _until_stop(made.fault)
                made.gate.drain()
                await asyncio.sleep(settings.drain_s)
            finally:
                await asyncio.to_thread(made.gate.stop)


@dataclass(frozen=True, slots=True)
class MadeGate:
    """A gate, not started, with what it lives by."""

    settings: GateSettings
    gate: Gate
    secrets: LiveSecrets
    fault: asyncio.Event  # set when it can answer no more
    descriptors: DescriptorFile | None

    def readiness(self) -> Readiness:
        """What the gate says, how it is reached, and what is wrong with its files."""
        told = self.descriptors.troubles() if self.descriptors else ()
        return with_transport(self.settings, self.gate.readiness()).warned((*self.secrets.troubles(), *told))

    def bound(self) -> dict[str, str]:
        """The settings that say where it listens, as they are once it has started."""
        named = {"listen": self.gate.address, "endings_listen": self.gate.endings_address}
        return {field: address for field, address in named.items() if address}

    async def keep_descriptors(self) -> None:
        """Follow the file of descriptors, where there is one, until cancelled."""
        if self.descriptors is None:
            await asyncio.Event().wait()
        else:
            await self.descriptors.keep(self.gate.ordinary.use)

    async def keep_secrets(self) -> None:
        """Follow the secrets file until cancelled."""
        await self.secrets.keep(self.gate.use_secrets)


@contextlib.contextmanager
def making_gate(settings: GateSettings, registry: CollectorRegistry) -> Iterator[MadeGate]:
    """Put the gate together in a running loop; raises ``CannotStart`` where a file is no good."""
    loop, fault = asyncio.get_running_loop(), asyncio.Event()
    for warning in warnings_of(settings):
        _log.warning("%s", warning.problem)
    with _admission_log(settings.admission_log) as admission_log:
        secrets = _read_secrets(settings, registry)
        on_fault = partial(loop.call_soon_threadsafe, fault.set)
        gate = _gate(settings, secrets, registry, admission_log, on_fault=on_fault)
        yield MadeGate(settings, gate, secrets, fault, _descriptors(settings, gate))


def _read_secrets(settings: GateSettings, registry: CollectorRegistry) -> LiveSecrets:
    """Read the secrets file; raises ``CannotStart`` where it is no good."""
    try:
        return LiveSecrets(settings.secrets_file, SecretsMetrics(registry))
    except SecretsError as error:
        raise CannotStart(str(error)) from error


def _gate(
    settings: GateSettings,
    secrets: LiveSecrets,
    registry: CollectorRegistry,
    admission_log: AdmissionLog | None,
    *,
    on_fault: Callable[[], object],
) -> Gate:
    clock = SystemClock()
    transport = Transport(settings, registry, clock, on_fault)
    return Gate(
        front=transport.front(),
        stores=_urls(settings),
        secrets=secrets.current(),
        clock=clock,
        registry=registry,
        on_fault=on_fault,
        on_taken=admission_log,
        bounded=_bounded(settings),
        serves=settings.services,
        gateway_namespace=settings.gateway_namespace or "",
        key_headers=settings.key_headers,
        endings=transport.receiver(),
        meter=settings.usage_metadata,
        allowances=Allowances(settings.lists_per_minute, settings.errors_per_minute),
        newest_format=NEWEST if settings.store_format == "auto" else int(settings.store_format),
    )


def _descriptors(settings: GateSettings, gate: Gate) -> DescriptorFile | None:
    """Read the file of descriptors, where there is one, and have it decide; raises ``CannotStart``."""
    if settings.descriptors is None:
        return None
    try:
        file = DescriptorFile(settings.descriptors, gate.ordinary.metrics)
    except DescriptorsError as error:
        raise CannotStart(f"{option_of('descriptors')} {error}") from error
    gate.ordinary.use(file.current)
    gate.ordinary.denies_undecided = settings.descriptors_failure == "deny"
    return file


def _bounded(settings: GateSettings) -> BoundedPolicy | None:
    if settings.store_failure == "deny":
        return None
    return BoundedPolicy(longest_ms=settings.bounded_for_s * 1000, least_gates=settings.gate_replicas)


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
