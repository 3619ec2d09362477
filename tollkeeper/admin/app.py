"""The admin process: the API over HTTP, and the publisher that brings publications into Envoy."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import click
from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, BeforeValidator, Field

from admin.assembly import Facts, assemble
from admin.host_tables import HostTables
from admin.http.app import create_app
from admin.http.proxies import TrustedProxies
from admin.models.addresses import AddressRules, parse_target
from admin.models.places import host_fault
from admin.people.pace import TENANT_WRITES, USER_CALLS, Paces
from admin.people.passwords import Passwords
from admin.people.users import acting_admins, ensure_admin
from admin.ports import NoPublisher
from admin.ports import Publisher as PublisherPort
from admin.quotas import DEFAULT_QUOTAS, Quotas
from admin.schemas.fields import user_fault
from admin.services import Gateway, Services, Stores
from catalog.damage import CorruptRecord
from catalog.keys.live_secrets import LiveSecrets
from catalog.keys.metrics import SecretsMetrics
from catalog.keys.secrets import SecretsError
from catalog.records import UserRecord
from catalog.store.store import TIMEOUT_S, CatalogStore, OutcomeUnknown, StoreUnavailable
from publisher.feed import BLOCK_MS, PublicationFeed
from publisher.metrics import PublisherMetrics
from publisher.publisher import Publisher
from publisher.turns.leading import Leading
from publisher.turns.lease import Lease
from publisher.workshop import workshop
from runtime.addresses import TcpAddress
from runtime.clock import SystemClock
from runtime.http.connections import FACE, refused_connections
from runtime.http.face import ProcessFace, facing, new_registry
from runtime.http.serving import listening
from runtime.lifecycle import CannotStart, running, stop_requested, tell_ready
from runtime.settings import ListenAddress, Metavar, Port, Secret, Words
from tollkeeper.admin.older_gates import routes_are_read
from tollkeeper.admin.stores import admin_stores, store_client
from tollkeeper.agreeing import agree_on_cells
from tollkeeper.publishing.sinks import CLUSTER, FILES, PublishingSettings, publishing_sink
from tollkeeper.store_settings import StoreSettings

_API: Final = "--listen"
_HOLDER_BYTES: Final = 8
_LEASE_TIMEOUT_S: Final = 1.0  # of one question for the lease: a third of its life
_log: Final = logging.getLogger(__name__)


def _host(value: str) -> str:
    if fault := host_fault(value.lower()):
        raise ValueError(fault)
    return value.lower()


def _origin(value: str) -> str:
    return parse_target(value).url


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(":" in parse_target(one).host for one in value):
        raise ValueError("must be names or addresses of IPv4, as the hosts of Envoy's routes are")
    return tuple(_origin(one) for one in value)


def _allowed(value: tuple[str, ...]) -> tuple[str, ...]:
    AddressRules.of(value, ())
    return value


def _proxies(value: tuple[str, ...]) -> tuple[str, ...]:
    TrustedProxies.of(value)
    return value


def _user(value: str) -> str:
    if fault := user_fault(value):
        raise ValueError(fault)
    return value


def _numbers(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Quota = Annotated[int, Field(ge=1, le=10**6)]
Ports = Annotated[tuple[Port, ...], BeforeValidator(_numbers), Metavar("A,B…")]


class AdminSettings(PublishingSettings, StoreSettings):
    """Serve the admin API over HTTP, and publish to Envoy."""

    listen: ListenAddress = TcpAddress("127.0.0.1", 8085)
    """Where the API answers, in plain HTTP: put TLS before it when other machines reach it."""

    http_listen: ListenAddress = TcpAddress("127.0.0.1", 9092)
    """Where /metrics and what /readyz has to tell answer, without a login: for who runs it, not for its users."""

    secrets_file: Path
    """The file of peppers and MAC keys that gate and admin share; `tollkeeper secrets init FILE` makes one."""

    models: Literal["registered", "kubernetes"] = "registered"
    """Whose word models are: those registered by the API alone, or KServe's InferenceServices too."""

    host_tables: Literal["close", "keep"] = "close"
    """Hosts' tables of models: closed once every gate reads routes, or kept, and opened again, for older gates."""

    default_host: Annotated[str, AfterValidator(_host), Metavar("HOST")] = "api.router.inference-in-a-box"
    """The host of publications that name none; all tenants share it below /models/ and /v1/models/."""

    gateway_url: Annotated[str, AfterValidator(_origin), Metavar("URL")] = "https://gateway"
    """Scheme and port of the URLs shown to callers; the host is each publication's own."""

    default_urls: Annotated[Words, AfterValidator(_origins), Metavar("URLS")] = ()
    """Origins at which callers reach the default host besides its name: `http://localhost:8080`. The first is shown of
    publications that name no host. For `files`."""

    admin_username: Annotated[str, AfterValidator(_user)] = "admin"
    """Name of the admin who is made at the first start."""

    admin_password: Secret | None = None
    """The admin's password from now on; without it the first start makes one and prints it once."""

    key_recovery: bool = False
    """Keep key texts, encrypted, so that GET shows them whole; only keys made while it is on can be shown."""

    allow_anonymous: bool = False
    """Let publications ask for no key (requireApiKey: false); turned off again, those that do stay as they are."""

    probe_allow: Annotated[Words, AfterValidator(_allowed)] = ()
    """Networks, addresses and hosts of model servers that are allowed though they are loopback or link-local."""

    probe_refuse_ports: Ports = ()
    """Ports of this machine that are never asked, allowed or not: the gateway's own."""

    trusted_proxies: Annotated[Words, AfterValidator(_proxies), Metavar("NETS")] = ()
    """Networks of proxies before the API, `unix` for its socket: X-Forwarded-For is believed of these only."""

    user_calls_per_minute: Annotated[int, Field(ge=1)] = USER_CALLS
    """Most API calls of a user in any minute, at each admin: what is more gets 429."""

    tenant_writes_per_minute: Annotated[int, Field(ge=1)] = TENANT_WRITES
    """Most changes in a tenant in any minute by users who are no admins, over all admins: what is more gets 429."""

    keys_per_tenant: Quota = DEFAULT_QUOTAS.keys
    """Most keys that a tenant may have, those that its publications are born with among them."""

    models_per_tenant: Quota = DEFAULT_QUOTAS.models
    """Most models that a tenant may have."""

    publications_per_tenant: Quota = DEFAULT_QUOTAS.publications
    """Most published models that a tenant may have."""

    users_per_tenant: Quota = DEFAULT_QUOTAS.users
    """Most users that a tenant may have, and most users that may have every tenant, the admins among them."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A cluster is named for something."""
        yield from super().conflicts()
        if self.default_urls and not (self.publish_to or "").startswith(FILES):
            yield "default_urls", "is for --publish-to files"
        if self.kubeconfig and self.publish_to != CLUSTER and self.models != "kubernetes":
            yield "kubeconfig", "is for --publish-to cluster and --models kubernetes"


async def serve(settings: AdminSettings) -> None:
    """Run until a signal, then stop taking requests, finish those in flight, and stop publishing."""
    registry, passwords = new_registry(), Passwords()
    secrets = _secrets(settings, registry)
    await agree_on_cells(settings)
    async with (
        admin_stores(settings) as stores,
        _publisher(settings, stores.catalog, registry, secrets) as publisher,
        running(secrets.keep(), name="secrets-watch"),
    ):
        await _first_user(settings, stores.catalog, passwords)
        services = assemble(
            stores,
            passwords,
            publisher,
            secrets=secrets,
            facts=_facts(settings),
            clock=SystemClock(),
            registry=registry,
        )
        await services.readiness.look()
        face, refused = ProcessFace(services.readiness.readiness, registry), refused_connections(registry)
        async with (
            running(services.readiness.keep(), name="readiness-watch"),
            running(services.metering.keep(), name="metering-watch"),
            running(_host_tables(settings, stores, services).run(), name="host-tables"),
            _models(settings, services, registry),
            facing(face, settings.http_listen, option=FACE, refused=refused.labels(FACE).inc) as told_at,
            listening(create_app(services), settings.listen, option=_API, refused=refused.labels(_API).inc) as address,
        ):
            _log.info("health and metrics: %s", told_at)
            _log.info("listening: %s", address)
            tell_ready()
            await stop_requested()


def _secrets(settings: AdminSettings, registry: CollectorRegistry) -> LiveSecrets:
    try:
        return LiveSecrets(settings.secrets_file, SecretsMetrics(registry))
    except SecretsError as error:
        raise CannotStart(str(error)) from error


def _host_tables(settings: AdminSettings, stores: Stores, services: Services) -> HostTables:
    """What closes hosts' tables, or keeps them."""
    all_read = routes_are_read(stores, settings.cells, SystemClock())
    keep = settings.host_tables == "keep"
    return HostTables(services.store, services.committer, all_read=all_read, keep=keep)


def _own_ports(settings: AdminSettings) -> tuple[int, ...]:
    return tuple(one.port for one in (settings.listen, settings.http_listen) if isinstance(one, TcpAddress))


def _upstream_ca(settings: AdminSettings) -> Path | None:
    """The authorities that the Envoy of our files trusts too, where there is such a file."""
    is_ours = (settings.publish_to or "").startswith(FILES) and settings.upstream_ca.is_file()
    return settings.upstream_ca if is_ours else None


def gateway_of(settings: AdminSettings) -> Gateway:
    """Where callers find the gateway."""
    shown = parse_target(settings.gateway_url)
    port = None if shown.is_default_port else shown.port
    return Gateway(settings.default_host, shown.scheme, port, settings.default_urls)


def _facts(settings: AdminSettings) -> Facts:
    return Facts(
        gateway=gateway_of(settings),
        rules=AddressRules.of(settings.probe_allow, (*settings.probe_refuse_ports, *_own_ports(settings))),
        upstream_ca=_upstream_ca(settings),
        key_recovery=settings.key_recovery,
        allow_anonymous=settings.allow_anonymous,
        cells=settings.cells,
        proxies=TrustedProxies.of(settings.trusted_proxies),
        paces=Paces(settings.user_calls_per_minute, settings.tenant_writes_per_minute),
        quotas=Quotas(
            models=settings.models_per_tenant,
            publications=settings.publications_per_tenant,
            keys=settings.keys_per_tenant,
            users=settings.users_per_tenant,
        ),
    )


@contextlib.asynccontextmanager
async def _models(settings: AdminSettings, services: Services, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Follow the cluster's models while the body runs, where that is asked for."""
    if settings.models == "registered":
        yield
        return
    from tollkeeper.admin.models import following  # noqa: PLC0415  the cluster's client takes half a second to load

    rules, gateway = _facts(settings).rules, settings.gateway_name
    async with following(settings.records, services, rules, registry, settings.kubeconfig, gateway=gateway):
        yield


@contextlib.asynccontextmanager
async def _publisher(
    settings: AdminSettings, store: CatalogStore, registry: CollectorRegistry, secrets: LiveSecrets
) -> AsyncIterator[PublisherPort]:
    """Publish while the body runs, where it is said where to."""
    if settings.publish_to is None:
        yield NoPublisher()
        return
    async with (
        store_client(settings.records, timeout_s=BLOCK_MS / 1000 + TIMEOUT_S) as client,
        store_client(settings.records, timeout_s=_LEASE_TIMEOUT_S) as claims,
    ):
        lease = Lease(claims, os.urandom(_HOLDER_BYTES).hex())
        with workshop() as files:
            async with publishing_sink(
                settings,
                settings.publish_to,
                secrets=secrets.current,
                may_write=lease.held,
                registry=registry,
                workshop=files,
                aliases={settings.default_host: gateway_of(settings).default_names},
            ) as sink:
                metrics = PublisherMetrics(registry)
                publisher = Publisher(store, PublicationFeed(client), sink, metrics, workshop=files)
                leading = Leading(lease, publisher, metrics)
                async with running(leading.run(), name="publisher-lease"):
                    yield leading


async def _first_user(settings: AdminSettings, store: CatalogStore, passwords: Passwords) -> None:
    given = settings.admin_password.get_secret_value() if settings.admin_password else None
    try:
        before = await acting_admins(store)
        made = await ensure_admin(store, passwords, name=settings.admin_username, password=given)
        _tell_of_admins(settings.admin_username, before, await acting_admins(store))
    except (StoreUnavailable, OutcomeUnknown) as error:
        raise CannotStart(f"--redis-url: the store cannot be used: {error}") from error
    except CorruptRecord as error:
        raise CannotStart(f"{error}; start with another --admin-username, and DELETE it as that one") from error
    if made:
        click.echo(f"The admin is {settings.admin_username}, the password {made} (shown this once).", err=True)


def _tell_of_admins(name: str, before: Sequence[UserRecord], now: Sequence[UserRecord]) -> None:
    """Say who else is an admin: another --admin-username does not replace the one before."""
    others = ", ".join(one.id for one in now if one.id != name)
    if name not in {one.id for one in now}:
        _log.warning("--admin-username %s is no admin who can act (disabled, or of another role); %s can", name, others)
    elif others:
        is_new = name not in {one.id for one in before}
        _log.log(logging.WARNING if is_new else logging.INFO, "besides %s these are admins too: %s", name, others)
