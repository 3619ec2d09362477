"""Puts a plan into Envoy's files and waits until Envoy serves it.

Owns the order (a route never points to a cluster that is not there) and the way back: what Envoy refuses is replaced by
what it accepted last. Knows no publication. One writer per folder; every file is replaced by a rename, so Envoy never
reads half of one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from publisher.drafts import draft, text_of
from publisher.envoy.admin import CLUSTERS, ROUTES, EnvoyAdmin, EnvoyUnreachable
from publisher.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from publisher.envoy.files import Resources, cluster_name, clusters, routes, together
from publisher.plan import Plan, plan
from publisher.prober import Proofs
from publisher.sink import NotServed, Refused

TIMEOUT_S: Final = 2.0
"""Longest wait for one plan to be served, in seconds."""

WARM_S: Final = 0.5
"""Longest wait for new servers' names to be looked up, in seconds; one that has no address holds nobody up longer."""

_POLL_S: Final = 0.01
"""Between two looks at Envoy, in seconds: it tells nobody when it has read a file."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file and the name under which Envoy reports on it."""

    path: Path
    kind: str


class FilesSink:
    """Keeps one Envoy's cluster and route files."""

    def __init__(
        self,
        folder: Path,
        admin: EnvoyAdmin,
        *,
        upstream_ca: str,
        origins: Sequence[str] = (),
        timeout_s: float = TIMEOUT_S,
        may_write: Callable[[], bool] = lambda: True,
        proofs: Proofs | None = None,
    ) -> None:
        self._may_write = may_write  # asked at each write: whether this process still is the folder's one writer
        self._folder = folder
        self._clusters = _File(folder / CLUSTERS_FILE, CLUSTERS)
        self._routes = _File(folder / ROUTES_FILE, ROUTES)
        self._admin = admin
        self._upstream_ca = upstream_ca
        self._origins = origins
        self._timeout_s = timeout_s
        self._proofs = proofs  # None: what Envoy accepted is live

    @property
    def waiting(self) -> str:
        """What is waited for: Envoy takes files up faster than anybody asks, so it is the proofs."""
        return self._proofs.waiting if self._proofs else ""

    def prepare(self) -> None:
        """Make the files that Envoy needs to start, with nothing published, where there are none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        nothing = plan(())
        for file, content in ((self._clusters, self._cluster_file(nothing)), (self._routes, self._route_file(nothing))):
            if _read(file.path) is None:
                _make(file.path, content.text())

    async def apply(self, wanted: Plan) -> Mapping[str, str]:
        """Bring a plan into force: new clusters, then the routes, then without the clusters that no route needs.

        Then every publication that changed is asked for at the listener, where that is known.
        Raises ``Refused`` (the plan before is in force again) or ``NotServed``.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._apply(wanted)
        except EnvoyUnreachable as error:
            raise NotServed(str(error)) from error
        except TimeoutError as error:
            raise NotServed(f"Envoy did not take the files up within {self._timeout_s:g} s") from error
        except OSError as error:
            raise NotServed(f"the folder cannot be written: {error}") from error
        return await self._proofs.missing(wanted) if self._proofs else {}

    async def follow(self, _: Callable[[], None]) -> None:
        """Wait for ever: nobody else writes the folder, and Envoy reads it by itself."""
        await asyncio.Event().wait()

    async def served(self) -> frozenset[str]:
        """The uids of the publications in the files; raises ``NotServed`` when they cannot be read."""
        try:
            found = _read(self._clusters.path)
        except OSError as error:
            raise NotServed(f"the folder cannot be read: {error}") from error
        names = [resource["name"] for resource in found.resources] if found else []
        return frozenset(name.removeprefix(cluster_name("")) for name in names)

    async def _apply(self, wanted: Plan) -> None:
        new = self._cluster_file(wanted)
        old = _read(self._clusters.path)
        before = await self._put(self._clusters, together(old, new) if old else new)
        await self._warmed()
        try:
            await self._put(self._routes, self._route_file(wanted))
        except Refused:
            self._restore(self._clusters, before)
            raise
        await self._put(self._clusters, new)

    async def _put(self, file: _File, content: Resources) -> str | None:
        """Have Envoy accept a file; returns the text it replaced."""
        text, before = content.text(), text_of(file.path)
        standing = await self._admin.standing(file.kind)
        if text == before and standing.version == content.version:
            return before
        self._replace(file.path, text)
        try:
            await self._accepted(file.kind, content.version, standing.refusals)
        except Refused:
            self._restore(file, before)
            raise
        return before

    async def _accepted(self, kind: str, version: str, refusals: int) -> None:
        """Wait until Envoy serves this version; raises ``Refused`` when it says no."""
        while (standing := await self._admin.standing(kind)).version != version:
            if standing.refusals > refusals:
                raise Refused(f"Envoy refused {kind} version {version}; its log says why")
            await asyncio.sleep(_POLL_S)

    async def _warmed(self) -> None:
        """Give new clusters the time to find their servers, so that the first call does not come too early."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                while (await self._admin.standing(CLUSTERS)).warming:  # noqa: ASYNC110  Envoy has no event for it
                    await asyncio.sleep(_POLL_S)

    def _restore(self, file: _File, text: str | None) -> None:
        if text is not None:
            self._replace(file.path, text)

    def _replace(self, path: Path, text: str) -> None:
        """Write by rename: a reader sees the old file or the new one, after a crash of the machine too."""
        ready = draft(path, text)
        if not self._may_write():  # asked after the slow part, right before what others can see
            raise NotServed("another process publishes now")
        ready.replace(path)

    def _cluster_file(self, wanted: Plan) -> Resources:
        return clusters(wanted, upstream_ca=self._upstream_ca)

    def _route_file(self, wanted: Plan) -> Resources:
        return routes(wanted, origins=self._origins)


def _read(path: Path) -> Resources | None:
    """A file's content, None where there is none or it is not ours."""
    text = text_of(path)
    try:
        return None if text is None else Resources.parse(text)
    except (ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _make(path: Path, text: str) -> None:
    """Make a file whole in place of none, or of one that is not ours; never of one that another process made."""
    ready = draft(path.with_name(f"{path.name}-{os.getpid()}"), text)
    if path.exists() and _read(path) is None:
        ready.replace(path)
        return
    with suppress(FileExistsError):
        os.link(ready, path)
    ready.unlink()
