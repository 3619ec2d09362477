"""Envoy's admin interface on its Unix socket: what it says about the files it was given. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp

from publisher.envoy.bootstrap import STAT_PREFIX
from publisher.envoy.files import ROUTES_NAME

CLUSTERS: Final = "cluster_manager.cds"
ROUTES: Final = f"http.{STAT_PREFIX}.rds.{ROUTES_NAME}"
_WARMING: Final = "cluster_manager.warming_clusters"
TIMEOUT_S: Final = 30.0
"""Longest wait for an answer, in seconds. While Envoy reads a file of ten MB it answers nobody, for a second or two and
several times that on a busy machine; who asks has a shorter bound where files are small."""


class EnvoyUnreachable(Exception):  # noqa: N818  an outcome, not a fault
    """Envoy's admin interface did not answer: nothing is known of what it serves."""


class EnvoyAdmin:
    """Asks one Envoy."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def __aenter__(self) -> Self:
        """Open nothing yet: every question has its own connection, so a restarted Envoy is found again."""
        connector = aiohttp.UnixConnector(self._socket, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        await self._session.close()

    async def version(self, kind: str) -> str:
        """The version of ``CLUSTERS`` or ``ROUTES`` that Envoy accepted last, "" for none; raises ``EnvoyUnreachable``.

        Cheap for Envoy however many clusters it has: texts are few, and no counter is looked at.
        """
        name = f"{kind}.version_text"
        return (await self._stats("TextReadouts", name)).get(name, "").strip('"')

    async def refusals(self, kind: str) -> int:
        """How many files of a kind it did not accept since it started. It looks through its counters for that."""
        return sum(map(int, (await self._stats("Counters", f"{kind}.update_(rejected|failure)")).values()))

    async def warming(self) -> int:
        """How many clusters there are whose servers' addresses it is still looking up."""
        return int((await self._stats("Gauges", _WARMING)).get(_WARMING, 0))

    async def _stats(self, kind: str, names: str) -> Mapping[str, str]:
        asked = {"type": kind, "filter": f"^{names}$"}
        try:
            async with self._session.get("http://envoy/stats", params=asked) as response:
                response.raise_for_status()
                lines = (await response.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyUnreachable(f"Envoy's admin socket does not answer: {error}") from error
        return dict(line.split(": ", 1) for line in lines if ": " in line)
