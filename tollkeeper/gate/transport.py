"""How Envoy reaches a gate: the settings of its gRPC address, and the front they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from gate.troubles import INSECURE_PLAINTEXT
from runtime.addresses import Address, UnixAddress, is_loopback
from runtime.clock import Clock
from runtime.grpc.front import FrontFactory, QueueLimits
from runtime.grpc.native import NativeFront
from runtime.readiness import Readiness, Trouble
from runtime.settings import ListenAddress, Settings, option_of

if TYPE_CHECKING:
    from gate.endings import ReceiverFactory
    from runtime.grpc.tls import Certificates


class TransportSettings(Settings):
    """Where the gate listens, with what, and who may come."""

    listen: ListenAddress = UnixAddress(Path("/run/tollkeeper/gate.sock"))
    """Where Envoy asks, by gRPC: a Unix socket, a loopback address, or any other with TLS."""

    endings_listen: ListenAddress | None = None
    """Where Envoys' access logs tell by gRPC how calls ended, as for `--listen`; beyond this machine with client
    certificates (`--tls-client-ca`). Every Envoy lists the endings addresses of all gates, and of each worker, which
    have one each as for `--listen`. Without it this gate hears of no end, and other gates must."""

    transport: Literal["native", "grpcio"] = "native"
    """What speaks gRPC: `native` is faster and has no TLS; `grpcio` has TLS and client certificates."""

    tls_certificate: Path | None = None
    """PEM file of the certificate that `--listen` shows, and of those up to its authority. Read again on change."""

    tls_key: Path | None = None
    """PEM file of that certificate's private key, without a passphrase. Read again on change."""

    tls_client_ca: Path | None = None
    """PEM file of authorities; only clients with a certificate of one of them may connect. Read again on change."""

    insecure_plaintext: bool = False
    """Allow `--listen` on an address that other machines reach, without TLS: only inside a mesh that encrypts."""

    store_wait_ms: int = Field(default=50, ge=20, le=1_000)
    """Milliseconds after taking a call at which any wait on the store ends with a 503. Envoy's ext_authz timeout (200)
    must be longer: twice as long and 100 ms, since a call may wait behind another batch first."""

    max_waiting_body_mib: int = Field(default=64, ge=1, le=4_096)
    """MiB of calls with a large body that may wait for their turn, of each worker; those beyond get 503. One above 256
    KiB, or so much of those above 8 KiB, is answered between batches of smaller ones. At least the largest body that
    Envoy hands over (`--max-body-mib`)."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """TLS is whole and by grpcio; plaintext beyond this machine only if the operator insists."""
        yield from super().conflicts()
        given = [field for field in ("tls_certificate", "tls_key", "tls_client_ca") if getattr(self, field) is not None]
        for needed in ("tls_certificate", "tls_key"):
            if given and needed not in given:
                yield needed, f"is needed with {option_of(given[0])}"
        if given and self.transport == "native":
            yield "transport", f"native has no TLS; {option_of(given[0])} needs --transport grpcio"
        if given and self.insecure_plaintext:
            yield "insecure_plaintext", f"contradicts {option_of(given[0])}"
        if not given and not self.insecure_plaintext:
            for field, address in self.addresses.items():
                if not is_loopback(address):
                    yield field, _NO_TLS
        if given and self.tls_client_ca is None and self.endings_listen and not is_loopback(self.endings_listen):
            yield "endings_listen", _NO_CLIENT_CA

    @property
    def addresses(self) -> dict[str, Address]:
        """Where this process listens for Envoy, by the setting that says it."""
        both = {"listen": self.listen, "endings_listen": self.endings_listen}
        return {field: address for field, address in both.items() if address is not None}

    @property
    def plain_beyond(self) -> dict[str, Address]:
        """The addresses that other machines can reach without TLS."""
        beyond = {field: address for field, address in self.addresses.items() if not is_loopback(address)}
        return {} if self.tls_certificate else beyond


_NO_TLS: Final = (
    "is reachable from other machines and has no TLS; give --transport grpcio with --tls-certificate"
    " and --tls-key, or add --insecure-plaintext to allow it"
)

_NO_CLIENT_CA: Final = "is reachable from other machines, whose clients must be known; give --tls-client-ca"


class Transport:
    """What the settings ask for, to be put into a gate. grpcio is imported only where it is asked for."""

    def __init__(
        self, settings: TransportSettings, registry: CollectorRegistry, clock: Clock, on_fault: Callable[[], object]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_fault = on_fault
        self._reloads = tls_reloads(registry) if settings.tls_certificate else None

    def front(self) -> FrontFactory:
        """What answers at ``--listen``."""
        waiting = self._settings.max_waiting_body_mib * 2**20
        limits = QueueLimits(answer_ms=self._settings.store_wait_ms, large_bytes_waiting=waiting)
        made: dict[str, Any] = {"clock": self._clock, "on_fault": self._on_fault}
        made["target"] = str(self._settings.listen)
        if self._settings.transport == "native":
            return partial(NativeFront, limits=limits, **made)
        from runtime.grpc.grpcio import GrpcioFront  # noqa: PLC0415  30 MiB that the other transport does without

        return partial(GrpcioFront, limits=limits, certificates=self._certificates(), **made)

    def receiver(self) -> ReceiverFactory | None:
        """What hears endings at ``--endings-listen``, where that is given."""
        if self._settings.endings_listen is None:
            return None
        from runtime.grpc.receiver import ReceiverLimits, StreamReceiver  # noqa: PLC0415  the same

        target, limits = str(self._settings.endings_listen), ReceiverLimits()
        certificates, on_fault = self._certificates(), self._on_fault
        return lambda methods, health, on_end: StreamReceiver(
            methods,
            health,
            target=target,
            on_end=on_end,
            on_fault=on_fault,
            limits=limits,
            certificates=certificates,
        )

    def _certificates(self) -> Certificates | None:
        """Of one address: each hears of changed files by itself."""
        settings, reloads = self._settings, self._reloads
        if settings.tls_certificate is None or settings.tls_key is None or reloads is None:
            return None
        from runtime.grpc.tls import Certificates, TlsFiles  # noqa: PLC0415  a tenth of a second to read certificates

        files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        return Certificates(files, lambda outcome: reloads.labels(outcome).inc())


def tls_reloads(registry: CollectorRegistry) -> Counter:
    """The one instrument of a gate with TLS that others lack."""
    return Counter(
        "tollkeeper_tls_reloads",
        "Times that changed certificate files were read again, by outcome.",
        ["outcome"],
        registry=registry,
    )


def with_transport(settings: TransportSettings, state: Readiness) -> Readiness:
    """Add how the gate is reached, and what the operator should know of it."""
    tls = "none"
    if settings.tls_certificate is not None:
        tls = "client certificates required" if settings.tls_client_ca else "no client certificates asked for"
    facts = state.facts | {"transport": settings.transport, "tls": tls}
    return replace(state, facts=facts).warned(warnings_of(settings))


def warnings_of(settings: TransportSettings) -> Iterator[Trouble]:
    """Tell what the operator insisted on."""
    for field, address in settings.plain_beyond.items():
        problem = f"--insecure-plaintext: {address} takes {_TAKEN[field]} unencrypted from other machines"
        yield INSECURE_PLAINTEXT.found(problem)


_TAKEN: Final = {"listen": "keys", "endings_listen": "endings"}
