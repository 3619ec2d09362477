"""Where publications are brought into force: the settings that say so, and the sink that they ask for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from admin.addresses import parse_target
from catalog.secrets import Secrets
from publisher.envoy_admin import EnvoyAdmin
from publisher.files_sink import FilesSink
from publisher.prober import Prober, Proofs
from publisher.sink import Sink
from runtime.clock import SystemClock
from runtime.lifecycle import CannotStart
from runtime.settings import Metavar, Settings
from tollkeeper.origins import Origins

_FILES: Final = "files:"


def _destination(value: str) -> str:
    if not value.startswith(_FILES) or value == _FILES:
        raise ValueError("must be files:DIR")
    return value


def _origin(value: str) -> str:
    return parse_target(value).url


class PublishingSettings(Settings):
    """What a process that publishes is told of the gateway."""

    publish_to: Annotated[str, AfterValidator(_destination), Metavar("files:DIR")] | None = None
    """Where publications are brought into force: a folder whose files Envoy watches; without it, nowhere."""

    envoy_admin_socket: Path | None = None
    """Unix socket of the admin interface of the Envoy that watches the folder: there it says what it accepted."""

    upstream_ca: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    """The certificates that Envoy trusts for model servers on https: the system's own bundle."""

    cors_origins: Origins = ()
    """Pages that may call from a browser, by origin: `https://app.example`. None: browsers are kept from answers."""

    probe_url: Annotated[str, AfterValidator(_origin), Metavar("URL")] | None = None
    """The gateway's listener: there each changed publication is asked for before it is called live. Without it what
    Envoy accepted is live. `https` too, whatever the certificate: answers are proved by the secrets file."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A folder needs the Envoy that watches it."""
        yield from super().conflicts()
        for field in ("cors_origins", "probe_url"):
            if getattr(self, field) and not self.publish_to:
                yield field, "needs --publish-to: it is about the Envoy that is published to"
        if self.publish_to and not self.envoy_admin_socket:
            yield "envoy_admin_socket", "is required where --publish-to is given"


@contextlib.asynccontextmanager
async def publishing_sink(
    settings: PublishingSettings, destination: str, *, secrets: Callable[[], Secrets], may_write: Callable[[], bool]
) -> AsyncIterator[Sink]:
    """The sink that a destination asks for, while the body runs; raises ``CannotStart``."""
    async with contextlib.AsyncExitStack() as stack:
        proofs = None
        if settings.probe_url:
            proofs = Proofs(await stack.enter_async_context(Prober(settings.probe_url, secrets, SystemClock())))
        envoy = await stack.enter_async_context(EnvoyAdmin(str(settings.envoy_admin_socket)))
        folder = Path(destination.removeprefix(_FILES))
        sink = FilesSink(
            folder,
            envoy,
            upstream_ca=str(settings.upstream_ca),
            origins=settings.cors_origins,
            may_write=may_write,
            proofs=proofs,
        )
        try:
            sink.prepare()
        except OSError as error:
            raise CannotStart(f"--publish-to {folder}: cannot be written: {error.strerror}") from error
        yield sink
