"""Tells when publications may have changed, from the catalog's change feed.

Says no more than that: who hears it reads all of them.
"""

from __future__ import annotations

from typing import Any, Final

import redis.asyncio

from catalog.records import Kind
from catalog.store import names

BLOCK_MS: Final = 1_000
"""Longest silence before the feed's newest entry is looked at: a feed that was lost wakes nobody."""

_MAX_ENTRIES: Final = 1_000
_NOTHING: Final = "0-0"
_PREFIX: Final = f"{Kind.PUBLICATION.value}:".encode()


class PublicationFeed:
    """Follows one cell's feed. ``client`` is its own: it answers in bytes, with a socket timeout above ``BLOCK_MS``."""

    def __init__(self, client: redis.asyncio.Redis, *, cell: str = "0") -> None:
        self._client = client
        self._feed = names.feed(cell)
        self._cursor = ""

    async def changed(self) -> bool:
        """Wait for news, ``BLOCK_MS`` at most; says whether a publication may have changed. At first it may have."""
        if not self._cursor:
            self._cursor = await self._newest()
            return True
        await self._client.xread({self._feed: self._cursor}, count=1, block=BLOCK_MS)
        entries: Any = await self._client.xrange(self._feed, f"({self._cursor}", "+", count=_MAX_ENTRIES)
        newest = await self._newest()
        seen = _id(entries[-1][0]) if entries else self._cursor
        self._cursor = newest
        return newest != seen or any(_names_publication(fields) for _, fields in entries)

    async def _newest(self) -> str:
        entries: Any = await self._client.xrevrange(self._feed, count=1)
        return _id(entries[0][0]) if entries else _NOTHING


def _id(raw: bytes) -> str:
    return raw.decode()


def _names_publication(fields: dict[bytes, bytes]) -> bool:
    return any(ref.startswith(_PREFIX) for ref in fields.get(b"refs", b"").split())
