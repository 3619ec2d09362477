"""``tollkeeper publish``: bring what is published into force once, say what came of it, and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import click
from prometheus_client import CollectorRegistry
from pydantic import AfterValidator
from redis.exceptions import RedisError

from catalog.keys.secrets import SecretsError, load_secrets
from catalog.records import PublicationRecord
from catalog.store.store import CatalogStore, StoreUnavailable
from publisher.gateway.folder.file import FILE, rendered
from publisher.gateway.resources.manifests import fitting
from publisher.plan import Plan, plan
from publisher.prober import Prober
from publisher.reading import all_publications
from publisher.sink import NotServed, Sink
from publisher.turns.lease import Lease
from runtime.clock import SystemClock
from runtime.files import mark_of
from runtime.lifecycle import CannotStart, going_on, rest
from runtime.settings import Metavar
from tollkeeper.admin.stores import store_client
from tollkeeper.publishing.cluster_settings import ClusterSettings
from tollkeeper.publishing.gateway_settings import FolderSettings
from tollkeeper.publishing.sinks import CLUSTER, CONDITIONS, FOLDER, folder_sink, sink_of_cluster
from tollkeeper.store_settings import StoreSettings

_PRINTED: Final = "-"
_HOLDER_BYTES: Final = 8
_TOLD_EVERY_S: Final = 2.0


def _destination(value: str) -> str:
    if value not in {_PRINTED, CLUSTER} and (not value.startswith(FOLDER) or value == FOLDER):
        raise ValueError("must be folder:DIR, cluster, or - for standard output")
    return value


class PublishSettings(FolderSettings, ClusterSettings, StoreSettings):
    """Bring all publications into force once, say of each that is not why, and end: with 1 where there is one."""

    to: Annotated[str, AfterValidator(_destination), Metavar("folder:DIR|cluster|-")]
    """Where to: a folder that an Envoy Gateway reads, the cluster of one, or `-`: print what a folder would hold."""

    secrets_file: Path | None = None
    """The file of peppers and MAC keys that gate and admin share: by it the gate knows who asks on `--probe-url`."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Whoever is asked must know who asks."""
        yield from super().conflicts()
        if self.probe_url and not self.secrets_file:
            yield "probe_url", "needs --secrets-file"
        yield from self.gateway_conflicts(wanted=True, where="--to")
        yield from self.folder_conflicts(wanted=self.to != CLUSTER, where="--to")
        if self.to == CLUSTER and self.probe_url:
            yield "probe_url", CONDITIONS
        if self.to != CLUSTER and self.kubeconfig:
            yield "kubeconfig", "is for --to cluster"


async def serve(settings: PublishSettings) -> None:
    """Read, write, wait until it is in force; raises ``CannotStart`` with what is not."""
    async with store_client(settings.records) as client:
        with _store_needed():
            records = await all_publications(CatalogStore(client))
        wanted = plan(records)
        if settings.to == _PRINTED:
            reasons = _print(settings, wanted)
        else:
            async with _turn(Lease(client, os.urandom(_HOLDER_BYTES).hex())) as lease:
                write = _write_cluster if settings.to == CLUSTER else _write_folder
                reasons = await write(settings, wanted, lease)
    _tell(settings, records, {**wanted.refused, **reasons})


@contextlib.contextmanager
def _store_needed() -> Iterator[None]:
    """Say of a store that cannot be used which option names it."""
    try:
        yield
    except (StoreUnavailable, RedisError, OSError) as error:
        raise CannotStart(f"--redis-url: the store cannot be used: {error}") from error


def _print(settings: PublishSettings, wanted: Plan) -> Mapping[str, str]:
    options = settings.options(from_files=True, per_publication_routes=False)
    fit = fitting(wanted, options)
    try:
        file = rendered(fit, options)
    except ValueError as error:
        raise CannotStart(f"nothing is printed, Envoy Gateway would take no file up any more: {error}") from error
    click.echo(file.text, nl=False)
    return fit.refused


@contextlib.asynccontextmanager
async def _turn(lease: Lease) -> AsyncIterator[Lease]:
    """Be the one process that publishes, however long the body takes."""
    with _store_needed():
        held = await lease.hold()
    if not held:
        raise CannotStart(
            "an admin publishes already (--publish-to), and two would undo each other's work: stop it or leave it to it"
        )
    renewing = asyncio.create_task(_renew(lease), name="lease-renewal")
    try:
        yield lease
    finally:
        renewing.cancel()
        await asyncio.wait((renewing,))
        with contextlib.suppress(RedisError, OSError):  # it ends by itself
            await lease.release()


async def _renew(lease: Lease) -> None:
    """Renew it until it is lost, and never take it again: another process may have published in between."""
    while going_on() and lease.held():
        with contextlib.suppress(RedisError, OSError):  # asked again for as long as it is held
            await lease.hold()
        await rest(lease.renewal_s)


async def _write_cluster(settings: PublishSettings, wanted: Plan, lease: Lease) -> Mapping[str, str]:
    registry = CollectorRegistry()
    try:
        async with sink_of_cluster("--to cluster", settings, settings.kubeconfig, lease.held, registry) as sink:
            return await _applied(sink, wanted)
    except NotServed as error:
        raise CannotStart(str(error)) from error


async def _write_folder(settings: PublishSettings, wanted: Plan, lease: Lease) -> Mapping[str, str]:
    path = Path(settings.to.removeprefix(FOLDER)) / FILE
    before = mark_of(path)
    try:
        async with contextlib.AsyncExitStack() as stack:
            prober = await stack.enter_async_context(_prober(settings)) if settings.probe_url else None
            return await _applied(folder_sink(settings, settings.to, prober, lease.held), wanted)
    except NotServed as error:
        raise CannotStart(str(error)) from error
    finally:
        click.echo(f"{path}: {'as it was' if mark_of(path) == before else 'written'}")


def _prober(settings: PublishSettings) -> Prober:
    try:
        secrets = load_secrets(settings.secrets_file or Path())
    except SecretsError as error:
        raise CannotStart(str(error)) from error
    return Prober(settings.probe_url or "", lambda: secrets, SystemClock())


async def _applied(sink: Sink, wanted: Plan) -> Mapping[str, str]:
    """Apply, and say every few seconds what is waited for."""
    telling = asyncio.create_task(_tell_progress(sink), name="progress")
    try:
        return await sink.apply(wanted)
    finally:
        telling.cancel()


async def _tell_progress(sink: Sink) -> None:
    while True:
        await asyncio.sleep(_TOLD_EVERY_S)
        if sink.waiting:
            click.echo(sink.waiting, err=True)


def _tell(settings: PublishSettings, records: Sequence[PublicationRecord], reasons: Mapping[str, str]) -> None:
    """Say how many are in force, and of each of the others why it is not."""
    failed = [record for record in records if record.uid in reasons]
    for record in sorted(failed, key=lambda record: (record.tenant, record.model)):
        click.echo(f"{record.tenant}/{record.model}: {reasons[record.uid]}", err=True)
    is_known = settings.probe_url or settings.to == CLUSTER
    done = "live" if is_known else "written; whether they are live was not asked (--probe-url)"
    if settings.to != _PRINTED:
        click.echo(f"publications: {len(records) - len(failed)} {done}")
    if failed:
        raise CannotStart(f"{len(failed)} of {len(records)} publications are refused")
