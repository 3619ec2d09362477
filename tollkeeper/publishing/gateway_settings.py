"""What a process that publishes to Envoy Gateway is told of it: one set of settings for every command that does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from admin.models.addresses import parse_target
from publisher.gateway.options import GateTrust, GatewayOptions, HostInfrastructure, MeterBy, SecretRef
from publisher.gateway.resources.fitting import is_server
from publisher.gateway.resources.naming import MAX_LABEL, is_name
from runtime.addresses import UnixAddress, parse_address
from runtime.settings import Metavar, Settings, Words, option_of
from tollkeeper.publishing.origins import Origins

_UNIX: Final = "unix:"
_MAX_SOCKET_BYTES: Final = 107
"""Linux has no room for more, and a Backend with much more is refused, and all else with it."""


def _name(value: str) -> str:
    if not is_name(value, longest=MAX_LABEL):
        raise ValueError(f"must be lower-case letters, digits, dashes and dots, at most {MAX_LABEL} characters")
    return value


def _label(value: str) -> str:
    if "." in value:
        raise ValueError("must have no dots")
    return value


def _names(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must name at least one")
    return tuple(_name(one) for one in dict.fromkeys(value))


def _secret(value: str) -> str:
    for one in value.split("/", 1):
        _name(one)
    return value


def _secrets(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_secret, dict.fromkeys(value)))


def _targets(value: tuple[str, ...]) -> tuple[str, ...]:
    for target in value:
        _check_target(target)
    if len({target.startswith(_UNIX) for target in value}) > 1:
        raise ValueError("must be all Unix sockets or all HOST:PORT")
    return value


def _check_target(target: str) -> None:
    address = parse_address(target)
    if isinstance(address, UnixAddress):
        if not PurePosixPath(address.path).is_absolute():
            raise ValueError("a Unix socket must be named by its whole path")
        if len(bytes(address.path)) > _MAX_SOCKET_BYTES:
            raise ValueError(f"a Unix socket's path must be at most {_MAX_SOCKET_BYTES} bytes")
    elif address.port == 0 or not is_server(address.host):
        raise ValueError("HOST:PORT must be a name in lower case or an address, and a port from 1 on")


def _is_unix(targets: tuple[str, ...]) -> bool:
    """Whether these are Unix sockets; they are all of one kind."""
    return any(target.startswith(_UNIX) for target in targets)


def _origin(value: str) -> str:
    return parse_target(value).url


_Name = Annotated[str, AfterValidator(_name), Metavar("NAME")]
_Secret = Annotated[str, AfterValidator(_secret), Metavar("[NAMESPACE/]NAME")]
_Secrets = Annotated[Words, AfterValidator(_secrets), Metavar("[NAMESPACE/]A,B…")]
_ListenerPort = Annotated[int, Field(ge=1, le=65535), Metavar("PORT")]


class GatewaySettings(Settings):
    """Which gateway, and what it is to do besides serving publications."""

    cors_origins: Origins = ()
    """Pages that may call from a browser, by origin: `https://app.example`. None: browsers are kept from answers."""

    probe_url: Annotated[str, AfterValidator(_origin), Metavar("URL")] | None = None
    """The gateway's listener: there each changed publication is asked for before it is called live. Without it what
    Envoy accepted is live. `https` too, whatever the certificate: answers are proved by the secrets file."""

    gateway_namespace: Annotated[_Name, AfterValidator(_label)] = "envoy-gateway-system"
    """Envoy Gateway: the namespace of all our objects; the gate is told the same."""

    gateway_name: _Name = "tollkeeper"
    """Envoy Gateway: the Gateway that publications attach to."""

    gateway_listeners: Annotated[Words, AfterValidator(_names), Metavar("A,B…")] = ("http",)
    """Envoy Gateway: names of the Gateway's listeners, of those that share a port the first. Patches are made for
    these; one that is left out asks the gate all the same."""

    gate_targets: Annotated[Words, AfterValidator(_targets), Metavar("A,B…")] = ()
    """Envoy Gateway: where it finds the gate's workers: `unix:/run/gate.sock`, or HOST:PORT; all of one kind."""

    gate_tls_name: _Name | None = None
    """Envoy Gateway: the name that the gate's certificate must have; without it the gate is asked in plaintext."""

    gate_tls_ca: _Name | None = None
    """Envoy Gateway: the ConfigMap whose `ca.crt` holds the authorities of the gate's certificate."""

    gate_tls_client: _Secret | None = None
    """Envoy Gateway: the Secret (`tls.crt`, `tls.key`) that it shows to a gate with `--tls-client-ca`."""

    patches: bool = True
    """Envoy Gateway: whether EnvoyPatchPolicy may be used, for what makes the gateway harder; calls are counted and
    closed without it too."""

    gateway_meter: Annotated[Literal["policy", "patch", "none"], Metavar("policy|patch|none")] | None = None
    """Envoy Gateway: how an answer's usage is read. `policy`: an EnvoyExtensionPolicy, for which Envoy Gateway must
    have `extensionApis.enableLua`. `patch`: an EnvoyPatchPolicy. `none`: tokens are estimated by the bytes of answers.
    By default `patch` where patches may be used, and `none` where not or with `--ai-gateway`."""

    ai_gateway: bool = False
    """Envoy Gateway: have Envoy AI Gateway serve the openai models that bodies name (AIGatewayRoute). Checked against
    the form of its resources only, never run. The gate needs `--usage-metadata` then."""

    check_timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 200
    """Envoy Gateway: longest wait for the gate's answer, in milliseconds; of openai models at least 5,000, since a
    large body takes its time. Then callers get 503."""

    max_body_mib: Annotated[int, Field(ge=1, le=64), Metavar("MIB")] = 4
    """Envoy Gateway: largest body of an openai call, in MiB; a larger one is answered 413."""

    trusted_hops: Annotated[int, Field(ge=0, le=16)] = 0
    """Envoy Gateway: proxies in front of it whose X-Forwarded-For is believed."""

    def options(self, *, from_files: bool, per_publication_routes: bool) -> GatewayOptions:
        """The same as the builder of resources takes it."""
        return GatewayOptions(
            gate=self.gate_targets,
            gate_tls=self._trust(),
            namespace=self.gateway_namespace,
            gateway=self.gateway_name,
            listeners=self.gateway_listeners,
            host=self.infrastructure(),
            endings=self.endings(),
            from_files=from_files,
            patches=self.patches,
            meter=self._meter(),
            ai_gateway=self.ai_gateway,
            per_publication_routes=per_publication_routes,
            origins=self.cors_origins,
            check_timeout_ms=self.check_timeout_ms,
            max_body_bytes=self.max_body_mib * 2**20,
            trusted_hops=self.trusted_hops,
        )

    def infrastructure(self) -> HostInfrastructure | None:
        """What Envoy Gateway itself is made of, where that is ours to write."""
        return None

    def endings(self) -> tuple[str, ...]:
        """Where it has endings told then."""
        return ()

    def gateway_conflicts(self, *, wanted: bool, where: str) -> Iterator[tuple[str, str]]:
        """Yield what is missing for Envoy Gateway, or is set without it. ``where``: the option that asks for it."""
        if not wanted:
            yield from ((field, f"is for Envoy Gateway, which {where} does not name") for field in self._given())
            return
        if any("[" in origin for origin in self.cors_origins):
            yield "cors_origins", "must have no IPv6 address, which Envoy Gateway takes in no origin"
        yield from self._meter_conflicts()
        yield from self._gate_conflicts()

    def _meter_conflicts(self) -> Iterator[tuple[str, str]]:
        if self.gateway_meter == MeterBy.PATCH.value and not self.patches:
            yield "gateway_meter", "patch needs --patches"
        if self.gateway_meter not in {None, MeterBy.NONE.value} and self.ai_gateway:
            yield "gateway_meter", "must be none with --ai-gateway, which counts tokens itself"

    def _gate_conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.gate_targets:
            yield "gate_targets", "is required: without a gate nothing may be let through"
        for field, needed in (("gate_tls_name", "gate_tls_ca"), ("gate_tls_ca", "gate_tls_name")):
            if getattr(self, field) and not getattr(self, needed):
                yield field, f"needs {option_of(needed)}"
        if self.gate_tls_client and not self.gate_tls_name:
            yield "gate_tls_client", "needs --gate-tls-name"
        if self.gate_tls_name and _is_unix(self.gate_targets):
            yield "gate_tls_name", "is of no use with a Unix socket (--gate-targets)"

    def _given(self) -> Iterator[str]:
        """The settings of Envoy Gateway that are not as they are by default."""
        own = GatewaySettings.model_fields.keys() - Settings.model_fields.keys() - {"cors_origins", "probe_url"}
        fields = type(self).model_fields
        return (field for field in fields if field in own and getattr(self, field) != fields[field].default)

    def _meter(self) -> MeterBy:
        if self.gateway_meter:
            return MeterBy(self.gateway_meter)
        return MeterBy.PATCH if self.patches and not self.ai_gateway else MeterBy.NONE

    def _trust(self) -> GateTrust | None:
        if not self.gate_tls_name or not self.gate_tls_ca:
            return None
        client = secret_reference(self.gate_tls_client) if self.gate_tls_client else None
        return GateTrust(name=self.gate_tls_name, ca=self.gate_tls_ca, client=client)


class FolderSettings(GatewaySettings):
    """Besides that, for an Envoy Gateway that reads a folder."""

    restart_follows: bool = False
    """A folder: write also what takes a field out of an object, which Envoy Gateway keeps until it is restarted."""

    envoy_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$"), Metavar("VERSION")] | None = None
    """A folder: the Envoy that Envoy Gateway starts on its machine, `1.39.1`; with it the Gateway is written too."""

    endings_targets: Annotated[Words, AfterValidator(_targets), Metavar("A,B…")] = ()
    """A folder: where that Gateway's proxy tells how calls ended: the workers' `--endings-listen`, of the kind of
    `--gate-targets`, and with the same TLS."""

    gateway_http_port: _ListenerPort | None = None
    """A folder: where that Gateway's `http` listener answers."""

    gateway_https_port: _ListenerPort | None = None
    """A folder: where that Gateway's `https` listener answers; none without it."""

    gateway_certificate: _Secrets = ()
    """A folder: Secrets (`tls.crt`, `tls.key`) of that listener, in another file of the folder; one for each host."""

    def infrastructure(self) -> HostInfrastructure | None:
        """Class, proxy and Gateway of a machine without a cluster."""
        if not self.envoy_version or not self.gateway_http_port:
            return None
        return HostInfrastructure(
            envoy_version=self.envoy_version,
            http_port=self.gateway_http_port,
            https_port=self.gateway_https_port,
            certificates=tuple(map(secret_reference, self.gateway_certificate)),
        )

    def endings(self) -> tuple[str, ...]:
        """The gates' receivers."""
        return self.endings_targets

    def folder_conflicts(self, *, wanted: bool, where: str) -> Iterator[tuple[str, str]]:
        """Yield what does not fit together. ``where``: the option that names the folder."""
        own = FolderSettings.model_fields.keys() - GatewaySettings.model_fields.keys()
        given = [field for field in FolderSettings.model_fields if field in own and getattr(self, field)]
        if not wanted:
            yield from ((field, f"is for a folder of Envoy Gateway, which {where} does not name") for field in given)
            return
        made = self.envoy_version is not None
        if made != (self.gateway_http_port is not None):
            yield "envoy_version", "and --gateway-http-port go together"
        if made == (not self.endings_targets):
            yield "endings_targets", "and --envoy-version go together: who writes the proxy has it tell how calls end"
        if self.endings_targets and _is_unix(self.endings_targets) != _is_unix(self.gate_targets):
            yield "endings_targets", "must be of the kind of --gate-targets: Unix sockets or HOST:PORT"
        if (self.gateway_https_port is None) != (not self.gateway_certificate):
            yield "gateway_https_port", "and --gateway-certificate go together"
        if self.gateway_https_port and not (made and "https" in self.gateway_listeners):
            yield "gateway_https_port", "needs --envoy-version, and https among --gateway-listeners"
        if made and not self.gateway_https_port and "https" in self.gateway_listeners:
            yield "gateway_listeners", "has https, which needs --gateway-https-port"


def secret_reference(written: str) -> SecretRef:
    """``NAME``, or ``NAMESPACE/NAME``."""
    namespace, _, name = written.rpartition("/")
    return SecretRef(name=name, namespace=namespace)
