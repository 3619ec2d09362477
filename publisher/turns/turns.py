"""Work by turns: of several processes one does it, while it holds a lease and not a moment longer. Knows no work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from publisher.turns.board import Board
from publisher.turns.lease import Lease
from runtime.lifecycle import going_on, rest, running

TRY_S: Final = 0.25
"""Between two questions for the lease while another has it: so long nobody works after it was given back."""

RELEASE_S: Final = 1.0
"""Longest wait for giving the lease back when this process stops."""

_log: Final = logging.getLogger(__name__)


def _nothing() -> None:
    """Say nothing of how the work stands."""


async def _never() -> None:
    """Have no news: the lease is renewed by the clock alone."""
    await asyncio.Event().wait()


class Turns:
    """Begins ``work`` anew whenever it is this process's turn, under ``name``. ``run`` is its one task.

    ``failed`` is called when the lease cannot be asked for. Who holds it tells the others what ``says`` gives, at each
    renewal and when ``news`` ends.
    """

    def __init__(
        self,
        lease: Lease,
        work: Callable[[], Coroutine[Any, Any, object]],
        *,
        name: str,
        failed: Callable[[], object],
        says: Callable[[], Board | None] = _nothing,
        news: Callable[[], Awaitable[None]] = _never,
    ) -> None:
        self._lease = lease
        self._work = work
        self._name = name
        self._failed = failed
        self._says = says
        self._news = news

    async def run(self) -> None:
        """Work whenever the lease is held, until cancelled; then let the next one begin at once."""
        try:
            while going_on():
                while not await self._hold(None):
                    await rest(TRY_S)
                _log.info("%s: it is this process's turn", self._name)
                async with running(self._work(), name=self._name):
                    await self._renew_while_held()
                _log.warning("%s: this process lost the lease", self._name)
        finally:
            with suppress(RedisError, OSError):  # it ends by itself
                async with asyncio.timeout(RELEASE_S):
                    await self._lease.release()

    async def _hold(self, board: Board | None) -> bool:
        """Ask for the lease or renew it; a store that cannot be asked gives it to nobody."""
        try:
            return await self._lease.hold(board)
        except (RedisError, OSError) as error:
            self._failed()
            _log.warning("%s: the lease cannot be asked for: %s", self._name, error)
            return self._lease.held()

    async def _renew_while_held(self) -> None:
        while going_on() and (left_s := self._lease.left_s) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, self._lease.renewal_s)):
                    await self._news()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._lease.left_s)):
                    if not await self._hold(self._says()):
                        return
