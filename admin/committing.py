"""Committing an act: one atomic write with its audit entry, counted, told to the publisher; and trying it again.

An act that meets a change of someone else's is read and decided anew, a bounded number of times.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from admin.http.problems import Code, Problem
from admin.metrics import AdminMetrics
from admin.people.pace import TenantWrites
from admin.ports import Publisher
from catalog.actors import told
from catalog.changes import Audit, Change, Committed
from catalog.store.store import ActorChanged, CatalogStore, Conflict, NoRoom, OutcomeUnknown

MAX_TRIES: Final = 20
_PAUSE_S: Final = 0.005  # grows with each try, at random, so that writers of one record do not march in step
_log: Final = logging.getLogger(__name__)
T = TypeVar("T")


class Committer:
    """Writes acts."""

    def __init__(
        self, store: CatalogStore, publisher: Publisher, metrics: AdminMetrics, writes: TenantWrites | None = None
    ) -> None:
        """``writes`` holds how many there may be in a tenant; without it any number."""
        self._store = store
        self._publisher = publisher
        self._metrics = metrics
        self._writes = writes

    def paced(self, writes: TenantWrites) -> Committer:
        """The same for who may write in a tenant only so often."""
        return Committer(self._store, self._publisher, self._metrics, writes)

    async def commit(self, changes: Sequence[Change], audit: Audit, forget_usage: Sequence[str] = ()) -> Committed:
        """Write an act whole or not at all; raises what ``CatalogStore.commit`` raises, ``Problem`` where too often."""
        if self._writes is None or not audit.tenant:
            return await self._commit(changes, audit, forget_usage)
        counted = await self._writes.count(audit.tenant)
        try:
            return await self._commit(changes, audit, forget_usage)
        except (Conflict, ActorChanged, NoRoom):
            await self._writes.give_back(counted)
            raise

    async def _commit(self, changes: Sequence[Change], audit: Audit, forget_usage: Sequence[str]) -> Committed:
        outcome = "unavailable"
        try:
            committed = await self._store.commit(changes, audit=audit, forget_usage=forget_usage)
            outcome = "committed"
        except (Conflict, ActorChanged):
            outcome = "conflict"
            raise
        except OutcomeUnknown:
            outcome = "unknown"
            raise
        finally:
            self._metrics.acts.labels(audit.action, outcome).inc()
            if outcome in {"committed", "unknown"}:
                self._publisher.poke()
                _log.info("%s of %s by %s: %s", audit.action, audit.target, told(audit.actor), outcome)
        return committed


async def until_settled(act: Callable[[], Awaitable[T]]) -> T:
    """Do an act that reads, decides and commits; again when another change came between.

    Raises ``Problem`` CONFLICT when that keeps happening.
    """
    for tried in range(MAX_TRIES):
        try:
            return await act()
        except Conflict:
            await asyncio.sleep(random.uniform(0, _PAUSE_S * (tried + 1)))  # noqa: S311  spreads writers, no secret  # nosec B311
    raise Problem(Code.CONFLICT, "others kept changing the same records; try again")
