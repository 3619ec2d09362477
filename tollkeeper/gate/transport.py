"""How Envoy reaches a gate: the settings of its gRPC address, and the front they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from gate.troubles import INSECURE_PLAINTEXT
from runtime.addresses import UnixAddress, is_loopback
from runtime.clock import Clock
from runtime.grpc.front import FrontFactory, QueueLimits
from runtime.grpc.native import NativeFront
from runtime.readiness import Readiness, Trouble
from runtime.settings import ListenAddress, Settings, option_of

if TYPE_CHECKING:
    from runtime.grpc.tls import Certificates


class TransportSettings(Settings):
    """Where the gate listens, with what, and who may come."""

    listen: ListenAddress = UnixAddress(Path("/run/tollkeeper/gate.sock"))
    """Where Envoy asks, by gRPC: a Unix socket, a loopback address, or any other with TLS."""

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
        if not given and not is_loopback(self.listen) and not self.insecure_plaintext:
            yield (
                "listen",
                (
                    "is reachable from other machines and has no TLS; give --transport grpcio with --tls-certificate"
                    " and --tls-key, or add --insecure-plaintext to allow it"
                ),
            )

    @property
    def is_plain_beyond(self) -> bool:
        """Whether other machines can reach the address without TLS."""
        return self.tls_certificate is None and not is_loopback(self.listen)


def front_factory(
    settings: TransportSettings, registry: CollectorRegistry, clock: Clock, on_fault: Callable[[], object]
) -> FrontFactory:
    """Choose the transport. grpcio is imported only where it is asked for."""
    limits = QueueLimits(answer_ms=settings.store_wait_ms)
    target = str(settings.listen)
    if settings.transport == "native":
        return partial(NativeFront, target=target, clock=clock, on_fault=on_fault, limits=limits)
    from runtime.grpc.grpcio import GrpcioFront  # noqa: PLC0415  30 MiB that the other transport does without

    certificates = _certificates(settings, registry)
    return partial(GrpcioFront, target=target, clock=clock, on_fault=on_fault, limits=limits, certificates=certificates)


def _certificates(settings: TransportSettings, registry: CollectorRegistry) -> Certificates | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    from runtime.grpc.tls import Certificates, TlsFiles  # noqa: PLC0415  reading certificates loads a tenth of a second

    reloads = tls_reloads(registry)
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
    if settings.is_plain_beyond:
        problem = f"--insecure-plaintext: {settings.listen} takes keys unencrypted from other machines"
        yield INSECURE_PLAINTEXT.found(problem)
