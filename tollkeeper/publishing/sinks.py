"""Where publications are brought into force: the setting that says so, and the sink that it asks for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

from prometheus_client import CollectorRegistry
from pydantic import AfterValidator

from catalog.keys.secrets import Secrets
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.routes import NO_ALIASES, Aliases
from publisher.envoy.sink import FilesSink
from publisher.gateway.folder.sink import FolderSink
from publisher.prober import Prober, Proofs
from publisher.sink import Sink
from publisher.workshop import Workshop
from runtime.clock import SystemClock
from runtime.lifecycle import CannotStart
from runtime.settings import Metavar
from tollkeeper.publishing.cluster_settings import ClusterSettings
from tollkeeper.publishing.gateway_settings import FolderSettings, GatewaySettings

FILES: Final = "files:"
"""Files that an Envoy watches."""
FOLDER: Final = "folder:"
"""Resources in a folder that an Envoy Gateway reads."""
CLUSTER: Final = "cluster"
"""Resources in a Kubernetes cluster."""


CONDITIONS: Final = "is not for a cluster: there the conditions of its resources tell what is live"


def _destination(value: str) -> str:
    if value != CLUSTER and not any(value.startswith(kind) and value != kind for kind in (FILES, FOLDER)):
        raise ValueError("must be files:DIR, folder:DIR or cluster")
    return value


class PublishingSettings(FolderSettings, ClusterSettings):
    """What a process that publishes all the time is told of the gateway."""

    publish_to: Annotated[str, AfterValidator(_destination), Metavar("files:DIR|folder:DIR|cluster")] | None = None
    """Where publications are brought into force: `files` that an Envoy watches, a `folder` that an Envoy Gateway
    reads, or the Kubernetes `cluster` of one; without it, nowhere."""

    envoy_admin_socket: Path | None = None
    """Unix socket of the admin interface of the Envoy that watches the files: there it says what it accepted."""

    upstream_ca: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """The certificates by which Envoy and this process trust model servers on https: the system's own bundle. For
    `files`."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Each kind of gateway needs what only it has."""
        yield from super().conflicts()
        to = self.publish_to or ""
        for field in ("cors_origins", "probe_url"):
            if getattr(self, field) and not to:
                yield field, "needs --publish-to: it is about the gateway that is published to"
        if to.startswith(FILES) and not self.envoy_admin_socket:
            yield "envoy_admin_socket", "is required where --publish-to names files"
        if to.startswith(FOLDER) and not self.probe_url:
            yield "probe_url", "is required where --publish-to names a folder: nothing else tells what is live"
        if to == CLUSTER and self.probe_url:
            yield "probe_url", CONDITIONS
        yield from self.gateway_conflicts(wanted=to == CLUSTER or to.startswith(FOLDER), where="--publish-to")
        yield from self.folder_conflicts(wanted=to.startswith(FOLDER), where="--publish-to")


@contextlib.asynccontextmanager
async def publishing_sink(
    settings: PublishingSettings,
    destination: str,
    *,
    secrets: Callable[[], Secrets],
    may_write: Callable[[], bool],
    registry: CollectorRegistry,
    workshop: Workshop,
    aliases: Aliases = NO_ALIASES,
) -> AsyncIterator[Sink]:
    """The sink that a destination asks for, while the body runs; raises ``CannotStart``.

    ``aliases``: further names of hosts, which files alone have.
    """
    if destination == CLUSTER:
        async with sink_of_cluster(
            "--publish-to cluster", settings, settings.kubeconfig, may_write, registry, workshop=workshop
        ) as sink:
            yield sink
        return
    async with contextlib.AsyncExitStack() as stack:
        prober = None
        if settings.probe_url:
            prober = await stack.enter_async_context(Prober(settings.probe_url, secrets, SystemClock()))
        if destination.startswith(FOLDER):
            yield folder_sink(settings, destination, prober, may_write, workshop=workshop)
        else:
            envoy = await stack.enter_async_context(EnvoyAdmin(str(settings.envoy_admin_socket)))
            yield _files_sink(
                settings, destination, envoy, prober, secrets, aliases=aliases, may_write=may_write, workshop=workshop
            )


def sink_of_cluster(
    option: str,
    settings: GatewaySettings,
    kubeconfig: Path | None,
    may_write: Callable[[], bool],
    registry: CollectorRegistry,
    *,
    workshop: Workshop | None = None,
) -> contextlib.AbstractAsyncContextManager[Sink]:
    """The sink of a cluster."""
    from tollkeeper.publishing.cluster import cluster_sink  # noqa: PLC0415  its client takes half a second to load

    options = settings.options(from_files=False, per_publication_routes=True)
    return cluster_sink(option, options, kubeconfig, may_write=may_write, registry=registry, workshop=workshop)


def folder_sink(
    settings: FolderSettings,
    destination: str,
    prober: Prober | None,
    may_write: Callable[[], bool],
    *,
    workshop: Workshop | None = None,
) -> FolderSink:
    """The sink of a folder that is there and can be written."""
    folder = Path(destination.removeprefix(FOLDER))
    if not folder.is_dir():
        raise CannotStart(f"{destination}: there is no such folder; name the one that Envoy Gateway reads")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise CannotStart(f"{destination}: the folder cannot be written")
    options = settings.options(from_files=True, per_publication_routes=False)
    return FolderSink(
        folder,
        options,
        prober,
        may_write=may_write,
        restart_follows=settings.restart_follows,
        workshop=workshop,
    )


def _files_sink(
    settings: PublishingSettings,
    destination: str,
    envoy: EnvoyAdmin,
    prober: Prober | None,
    secrets: Callable[[], Secrets],
    *,
    aliases: Aliases,
    may_write: Callable[[], bool],
    workshop: Workshop,
) -> FilesSink:
    folder = Path(destination.removeprefix(FILES))
    sink = FilesSink(
        folder,
        envoy,
        upstream_ca=str(settings.upstream_ca),
        origins=settings.cors_origins,
        aliases=aliases,
        may_write=may_write,
        proofs=Proofs(prober) if prober else None,
        workshop=workshop,
        secrets=secrets,
    )
    try:
        sink.prepare()
    except OSError as error:
        raise CannotStart(f"--publish-to {folder}: cannot be written: {error.strerror}") from error
    return sink
