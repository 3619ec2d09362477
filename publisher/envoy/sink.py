"""Puts a plan into Envoy's files and waits until Envoy serves it.

Owns the order (a route never points to a cluster that is not there) and the way back: what Envoy refuses is replaced by
what it accepted last. Knows no publication. One writer per folder; every file is replaced by a rename, so Envoy never
reads half of one. Files are rendered, compared and written in a workshop: of thousands of publications they have MBs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from catalog.keys.secrets import Secrets
from publisher.envoy.admin import CLUSTERS, ROUTES, EnvoyAdmin, EnvoyUnreachable
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.credentials import CREDENTIAL, CredentialFiles, Opened, opened_of
from publisher.envoy.files import Resources, cluster_name, together
from publisher.envoy.kept import KeptFile, make_file
from publisher.envoy.rendering import Rendering
from publisher.envoy.routes import NO_ALIASES, Aliases
from publisher.plan import Plan, plan
from publisher.prober import Proofs
from publisher.sink import NotServed, Refused
from publisher.workshop import Workshop

TIMEOUT_S: Final = 2.0
"""Longest wait for a small plan to be served, in seconds."""

BYTES_A_SECOND: Final = 1_000_000
"""So many bytes of routes more, and a second more is waited. Envoy reads some ten million on an idle machine."""

MOST: Final = 5_000
"""Publications of a plain Envoy: a change is live within some four seconds then, and its memory below the half of what
its overload manager lets it have (decision 40)."""

WARM_S: Final = 0.5
"""Longest wait for new servers' names to be looked up, in seconds; one that has no address holds nobody up longer."""

_ANOTHER: Final = "another process publishes now"
_POLL_S: Final = 0.01
"""Between two looks at Envoy, in seconds: it tells nobody when it has read a file."""

_LOOKS: Final = 10
"""So many looks at the version for one at the refusals, which costs Envoy more."""


class FilesSink:
    """Keeps one Envoy's cluster and route files. ``workshop``: where the files are made, by default one of its own."""

    most = MOST
    rewrites = True
    speaks_grpc = True
    injects_values = True
    injects_secrets = False

    def __init__(  # noqa: PLR0913  it is what binds these parts together
        self,
        folder: Path,
        admin: EnvoyAdmin,
        *,
        upstream_ca: str,
        origins: Sequence[str] = (),
        aliases: Aliases = NO_ALIASES,
        timeout_s: float = TIMEOUT_S,
        may_write: Callable[[], bool] = lambda: True,
        proofs: Proofs | None = None,
        workshop: Workshop | None = None,
        secrets: Callable[[], Secrets] | None = None,
    ) -> None:
        """``secrets``: what servers' values are sealed under; without it none can be given to Envoy."""
        self._may_write = may_write  # asked at each write: whether this process still is the folder's one writer
        self._folder = folder
        self._clusters = KeptFile(folder / CLUSTERS_FILE, CLUSTERS)
        self._routes = KeptFile(folder / ROUTES_FILE, ROUTES)
        self._admin = admin
        self._credentials = CredentialFiles(folder / CREDENTIAL)
        self._rendering = Rendering(
            upstream_ca=upstream_ca, origins=origins, credentials=str(self._credentials.folder), aliases=aliases
        )
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._proofs = proofs  # None: what Envoy accepted is live
        self._workshop = workshop or Workshop()

    @property
    def waiting(self) -> str:
        """What is waited for: Envoy takes files up faster than anybody asks, so it is the proofs."""
        return self._proofs.waiting if self._proofs else ""

    def prepare(self) -> None:
        """Make the files that Envoy needs to start, with nothing published, where there are none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        nothing = self._rendering.of(plan(()))
        make_file(self._clusters.path, nothing.clusters)
        make_file(self._routes.path, nothing.routes)

    async def apply(self, wanted: Plan) -> Mapping[str, str]:
        """Bring a plan into force: new clusters, then the routes, then without the clusters that no route needs.

        What servers want with each call is there before them, and gone after those that wanted it.
        Then every publication that changed is asked for at the listener, where that is known.
        Raises ``Refused`` (the plan before is in force again) or ``NotServed``.
        """
        opened = opened_of(wanted, self._secrets and self._secrets())
        try:
            await self._workshop.do(self._write_credentials, opened)
            await self._apply(wanted)
            await self._workshop.do(self._keep_credentials, opened)
        except EnvoyUnreachable as error:
            raise NotServed(str(error)) from error
        except OSError as error:
            raise NotServed(f"the folder cannot be written: {error}") from error
        missing = await self._proofs.missing(wanted) if self._proofs else {}
        return {**missing, **opened.faults}

    async def follow(self, _: Callable[[], None]) -> None:
        """Wait for ever: nobody else writes the folder, and Envoy reads it by itself."""
        await asyncio.Event().wait()

    async def served(self) -> frozenset[str]:
        """The uids of the publications in the files; raises ``NotServed`` when they cannot be read."""
        try:
            found = await self._workshop.do(self._clusters.content)
        except OSError as error:
            raise NotServed(f"the folder cannot be read: {error}") from error
        return frozenset(name.removeprefix(cluster_name("")) for name in found.texts) if found else frozenset()

    def _write_credentials(self, opened: Opened) -> None:
        if not self._may_write():
            raise NotServed(_ANOTHER)
        self._credentials.write(opened.values)

    def _keep_credentials(self, opened: Opened) -> None:
        """Remove the others' files; not where they may be those of another process that writes the folder by now."""
        if not self._may_write():
            raise NotServed(_ANOTHER)
        self._credentials.keep(opened.values)

    async def _apply(self, wanted: Plan) -> None:
        """Have both files say it. The limit of time is Envoy's alone: nobody fails for rendering slowly."""
        made = await self._workshop.do(self._rendering.of, wanted)
        old = await self._workshop.do(self._clusters.content)
        both = await self._workshop.do(together, old, made.clusters) if old else made.clusters
        longest_s = self._timeout_s + made.routes.size / BYTES_A_SECOND
        try:
            async with asyncio.timeout(longest_s):
                await self._in_order(both, made.routes, made.clusters)
        except TimeoutError as error:
            raise NotServed(f"Envoy did not take the files up within {longest_s:.2g} s") from error

    async def _in_order(self, both: Resources, routes: Resources, clusters: Resources) -> None:
        before = await self._put(self._clusters, both)
        if before is not None:
            await self._warmed()
        try:
            await self._put(self._routes, routes)
        except Refused:
            await self._restore(self._clusters, before)
            raise
        await self._put(self._clusters, clusters)

    async def _put(self, file: KeptFile, content: Resources) -> str | None:
        """Have Envoy accept a file; returns the text that it replaced, None where all was as it is to be."""
        if await self._workshop.do(file.says, content) and await self._is_taken_up(file.kind, content.version):
            return None
        refusals = await self._admin.refusals(file.kind)
        before = await self._replace(file, content.text)
        file.left_with(content)
        try:
            await self._accepted(file.kind, content.version, refusals)
        except Refused:
            await self._restore(file, before)
            raise
        return before

    async def _is_taken_up(self, kind: str, version: str) -> bool:
        """Whether Envoy serves what is there, or does so within a while: who writes it again makes it begin anew."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s / 2):
                while await self._admin.version(kind) != version:  # noqa: ASYNC110  Envoy has no event for it
                    await asyncio.sleep(_POLL_S)
            return True
        return False

    async def _accepted(self, kind: str, version: str, refusals: int) -> None:
        """Wait until Envoy serves this version; raises ``Refused`` when it says no."""
        for look in itertools.count(1):
            if await self._admin.version(kind) == version:
                return
            if look % _LOOKS == 0 and await self._admin.refusals(kind) > refusals:
                raise Refused(f"Envoy refused {kind} version {version}; its log says why")
            await asyncio.sleep(_POLL_S)

    async def _warmed(self) -> None:
        """Give new clusters the time to find their servers, so that the first call does not come too early."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                while await self._admin.warming():  # noqa: ASYNC110  Envoy has no event for it
                    await asyncio.sleep(_POLL_S)

    async def _restore(self, file: KeptFile, before: str | None) -> None:
        if before is not None:
            await self._replace(file, lambda: before)

    async def _replace(self, file: KeptFile, text: Callable[[], str]) -> str:
        """Write by rename: a reader sees the old file or the new one, after a crash of the machine too.

        Returns what the file said before, "" where there was none.
        """
        ready, before = await self._workshop.do(file.drafted, text)
        if not self._may_write():  # asked after the slow part, right before what others can see
            raise NotServed(_ANOTHER)
        ready.replace(file.path)
        return before
