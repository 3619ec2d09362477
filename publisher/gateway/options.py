"""What differs from one Envoy Gateway to another. Values only."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class MeterBy(enum.Enum):
    """How the filter that notes an answer's usage comes before the gateway's router."""

    POLICY = "policy"  # EnvoyExtensionPolicy: Envoy Gateway's `extensionApis.enableLua`
    PATCH = "patch"  # EnvoyPatchPolicy: `extensionApis.enableEnvoyPatchPolicy`
    NONE = "none"  # not at all: tokens are estimated by the bytes of an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """A Secret by name. Where it lies in another namespace than our objects, a ReferenceGrant is written for it."""

    name: str
    namespace: str = ""  # "": that of our objects


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTrust:
    """TLS to a gate with ``--transport grpcio``: objects that lie beside ours, which somebody else owns."""

    name: str
    """The name that the gate's certificate must have, also sent as SNI."""
    ca: str
    """ConfigMap whose ``ca.crt`` holds the authorities of the gate's certificate."""
    client: SecretRef | None = None
    """What Envoy shows (``tls.crt``, ``tls.key``), for a gate with ``--tls-client-ca``; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfrastructure:
    """An Envoy that Envoy Gateway starts on its own machine (standalone: resources from files, provider Host)."""

    envoy_version: str
    """Of the binary in DATA_HOME/envoy-versions/VERSION/bin/envoy: ``1.40.0``."""
    http_port: int
    https_port: int | None = None
    certificates: Sequence[SecretRef] = ()
    """Of the https listener; at least one where it has a port. Callers get the one with the name they ask for."""
    drain_s: int = 600
    """For how long a listener that changes lets its calls go on, in seconds: as long as the longest call."""
    max_heap_bytes: int = 1024 * 1024 * 1024
    """From 75 % on Envoy cuts large uploads off, at 95 % requests get 503."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Where our objects live and what they say besides publications."""

    gate: Sequence[str]
    """The gate's workers: ``unix:/run/gate.sock``, or ``host:port``. At least one, all of one kind."""
    gate_tls: GateTrust | None = None
    """None: plaintext. Of the endings too."""
    endings: Sequence[str] = ()
    """Where gates hear how calls ended, as ``gate``; for ``host`` only: its owner has a proxy's log tell endings."""
    namespace: str = "envoy-gateway-system"
    """Of all our objects, the gateway among them. At most 63 characters."""
    gateway: str = "tollkeeper"
    """The Gateway that routes attach to. At most 63 characters."""
    listeners: Sequence[str] = ("http",)
    """Names of its listeners, the first of each port, each of which is patched."""
    host: HostInfrastructure | None = None
    """Given: GatewayClass, EnvoyProxy and Gateway are written too. None: somebody else owns those three."""
    from_files: bool = False
    """Whether Envoy Gateway reads our objects from files and not from a cluster: it then names a cluster otherwise, and
    forgets the labels of routes."""
    patches: bool = True
    """Whether EnvoyPatchPolicy may be used, for what makes the gateway harder and its answers kinder."""
    meter: MeterBy = MeterBy.PATCH
    """How an answer's usage is noted. By patch needs patches."""
    ai_gateway: bool = False
    """Whether Envoy AI Gateway has the openai models that a body names: AIGatewayRoutes are written for them."""
    per_publication_routes: bool = False
    """One HTTPRoute a publication, whose conditions are then its own. Otherwise a host's rules fill few routes."""
    origins: Sequence[str] = ()
    """Of pages that may call from a browser: ``https://app.example``."""
    check_timeout_ms: int = 200
    """Longest wait for Check of a call without a body, in milliseconds, then 503. The gate answers long before."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Largest body of an openai call, above it: 413."""
    request_timeout_s: int = 60
    """Longest time for a whole request to arrive, in seconds."""
    max_connections: int = 10_000
    """Callers' connections at once, on each listener."""
    trusted_hops: int = 0
    """Proxies in front whose X-Forwarded-For is believed."""

    @property
    def rewrites(self) -> bool:
        """Whether Envoy writes the name that a server knows into bodies; on AI Gateway's routes it does not."""
        return self.meter is not MeterBy.NONE and not self.ai_gateway

    @property
    def injects_secrets(self) -> bool:
        """Whether servers get headers from Secrets; of Envoy AI Gateway that is a BackendSecurityPolicy's."""
        return not self.ai_gateway
