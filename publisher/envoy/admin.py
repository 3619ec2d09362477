"""Envoy's admin interface on its Unix socket: what it says about the files it was given. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp

from publisher.envoy.bootstrap import STAT_PREFIX
from publisher.envoy.files import ROUTES_NAME

CLUSTERS: Final = "cluster_manager.cds"
ROUTES: Final = f"http.{STAT_PREFIX}.rds.{ROUTES_NAME}"
_WARMING: Final = "cluster_manager.warming_clusters"
_FILTER: Final = "(version_text|update_rejected|update_failure|warming_clusters)$"
_TIMEOUT_S: Final = 1.0


class EnvoyUnreachable(Exception):  # noqa: N818  an outcome, not a fault
    """Envoy's admin interface did not answer: nothing is known of what it serves."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where Envoy stands with one kind of file."""

    version: str  # of the last one it accepted; "" for none
    refusals: int  # files it did not accept since it started
    warming: int  # clusters whose servers' addresses it is still looking up


class EnvoyAdmin:
    """Asks one Envoy."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def __aenter__(self) -> Self:
        """Open nothing yet: every question has its own connection, so a restarted Envoy is found again."""
        connector = aiohttp.UnixConnector(self._socket, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        await self._session.close()

    async def standing(self, kind: str) -> Standing:
        """Where Envoy stands with ``CLUSTERS`` or ``ROUTES``; raises ``EnvoyUnreachable``."""
        stats = await self._stats()
        return Standing(
            version=stats.get(f"{kind}.version_text", "").strip('"'),
            refusals=int(stats.get(f"{kind}.update_rejected", 0)) + int(stats.get(f"{kind}.update_failure", 0)),
            warming=int(stats.get(_WARMING, 0)),
        )

    async def _stats(self) -> Mapping[str, str]:
        try:
            async with self._session.get("http://envoy/stats", params={"filter": _FILTER}) as response:
                response.raise_for_status()
                lines = (await response.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyUnreachable(f"Envoy's admin socket does not answer: {error}") from error
        return dict(line.split(": ", 1) for line in lines if ": " in line)
