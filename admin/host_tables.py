"""Closes the tables of hosts once every gate reads routes, and opens them again for gates that do not.

A gate of the release before reads tables alone, so they stay as long as one may be about. An admin of that release
finds a closed host damaged, and changes nothing there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis.exceptions import RedisError

from admin.committing import Committer
from admin.models.sites import readable
from admin.models.tables import close, open_again
from catalog.actors import Recordless
from catalog.changes import Audit, Change
from catalog.records import HostRecord, Kind
from catalog.store.store import CatalogStore, Conflict, OutcomeUnknown, StoreUnavailable
from runtime.lifecycle import going_on, rest

LOOK_S: Final = 5.0
_log: Final = logging.getLogger(__name__)


class HostTables:
    """``run`` is its one task. Several admins may do it at once: each step holds the version that it goes by.

    ``all_read``: whether surely every gate reads routes; raises ``RedisError``, ``OSError``. ``keep``: close no table,
    and open every one that is closed.
    """

    def __init__(
        self,
        store: CatalogStore,
        committer: Committer,
        *,
        all_read: Callable[[], Awaitable[bool]],
        keep: bool = False,
    ) -> None:
        self._store = store
        self._committer = committer
        self._all_read = all_read
        self._keep = keep
        self._settled_at: str | None = None  # the epoch at which nothing was left to do

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while going_on():
            try:
                await self.look()
            except (StoreUnavailable, OutcomeUnknown, RedisError, OSError) as error:
                _log.warning("hosts' tables stay as they are for now: %s", error)
            await rest(LOOK_S)

    async def look(self) -> None:
        """Bring every host in step, where it is time."""
        if not self._keep and not await self._all_read():
            return
        epoch = await self._store.epoch()
        if epoch == self._settled_at:
            return
        hosts = [one async for one in readable(self._store, Kind.HOST, HostRecord)]
        settled = [await self._bring(one) for one in hosts]
        self._settled_at = epoch if all(settled) else None

    async def _bring(self, host: HostRecord) -> bool:
        """Close a table, or open one; False where others were at it."""

        async def commit(changes: Sequence[Change], action: str) -> None:
            await self._committer.commit(changes, Audit(Recordless.HOSTS, action, host.id, "", ""))

        try:
            if host.is_opening or (self._keep and host.is_closed):
                await open_again(self._store, host, commit)
            elif not host.is_closed and not self._keep and not await close(self._store, host, commit):
                _log.warning("the table of %s stays: a publication there cannot be read", host.id)
        except Conflict:
            return False
        return True
