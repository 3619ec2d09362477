"""Publishing by turns: of several processes one publishes, and all of them tell the same of every publication.

Owns when this process's publisher runs: while it holds the lease, and not a moment longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from redis.exceptions import RedisError

from catalog.status import Status
from publisher.board import Board
from publisher.lease import Lease
from publisher.metrics import PublisherMetrics
from publisher.publisher import Publisher
from publisher.troubles import BEHIND
from runtime.lifecycle import going_on, running
from runtime.readiness import Trouble

TRY_S: Final = 0.25
"""Between two questions for the lease while another has it: so long nobody publishes after it was given back."""

RELEASE_S: Final = 1.0
"""Longest wait for giving the lease back when this process stops."""

_log: Final = logging.getLogger(__name__)


class Leading:
    """Runs a publisher while this process holds the lease. ``run`` is its one task."""

    def __init__(self, lease: Lease, publisher: Publisher, metrics: PublisherMetrics) -> None:
        self._lease = lease
        self._publisher = publisher
        self._metrics = metrics
        self._leads = False

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands, whoever publishes."""
        return self._board().status(uid, version)

    def poke(self) -> None:
        """Say that something was committed; another process that publishes hears it from the feed."""
        self._publisher.poke()

    def troubles(self) -> Sequence[Trouble]:
        """Tell what keeps publications from being served, whoever publishes."""
        if self._leads:
            return self._publisher.troubles()
        trouble = self._lease.board.trouble
        return (BEHIND.found(f"publications are not brought into force: {trouble}"),) if trouble else ()

    async def run(self) -> None:
        """Publish whenever it is this process's turn, until cancelled; then let the next one begin at once."""
        try:
            while going_on():
                await self._wait_for_turn()
                await self._lead()
        finally:
            with suppress(RedisError, OSError):  # it ends by itself
                async with asyncio.timeout(RELEASE_S):
                    await self._lease.release()

    def _board(self) -> Board:
        return self._publisher.board if self._leads else self._lease.board

    async def _wait_for_turn(self) -> None:
        while going_on() and not await self._hold(None):  # noqa: ASYNC110  no event tells of a lease that ended
            await asyncio.sleep(TRY_S)

    async def _hold(self, board: Board | None) -> bool:
        """Ask for the lease or renew it; a store that cannot be asked gives it to nobody."""
        try:
            return await self._lease.hold(board)
        except (RedisError, OSError) as error:
            self._metrics.errors.labels("lease").inc()
            _log.warning("the publisher's lease cannot be asked for: %s", error)
            return self._lease.held()

    async def _lead(self) -> None:
        """Publish until the lease is lost; the publisher is stopped before another process could begin."""
        _log.info("this process publishes from now on")
        self._publisher.begin(self._lease.board)
        self._leads = True
        self._metrics.leader.set(1)
        try:
            async with running(self._publisher.run(), name="publisher"):
                await self._renew_while_held()
        finally:
            self._leads = False
            self._metrics.leader.set(0)
        _log.warning("this process lost the lease and does not publish")

    async def _renew_while_held(self) -> None:
        while going_on() and (left_s := self._lease.left_s) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, self._lease.renewal_s)):
                    await self._publisher.news()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._lease.left_s)):
                    if not await self._hold(self._publisher.board):
                        return
