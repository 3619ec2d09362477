"""Tells the budgets store that records changed, where records are kept in another store.

Every cell of the budgets store has an epoch of its own, in front of which gates prove that what they cached is current.
A change raises it in every cell after the records are written and before it is answered. Telling twice does no harm,
so what could not be told is owed and tried until it is; the same at the start of a process, because the one before may
have died between writing and telling. The one caller of lua/announce.lua.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError

from catalog.store import names
from runtime.lifecycle import going_on, rest

EPOCH_BYTES: Final = 8  # 64 random bits: a counter that comes again never makes the same epoch
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 5.0
RETIRED_S: Final = 397 * 24 * 3600
"""How long the usage of what is no more is kept: 13 months, as commit.lua has it."""
GONE_S: Final = 3600
"""How long it is marked that there was none, as commit.lua has it: longer than gates keep what is not written."""

PATIENCE_S: Final = 3.0
"""Longest time for one telling of all cells."""

_ANNOUNCE: Final = files("catalog.store").joinpath("lua/announce.lua").read_bytes()
_log: Final = logging.getLogger(__name__)


def announce(
    cell: int, refs: Iterable[str], records: str = "", entropy: Callable[[int], bytes] = os.urandom
) -> tuple[Any, ...]:
    """Give the command that raises a cell's epoch; it replies the new one. No ``refs``: all records may have changed.

    ``records``: the epoch of the records' store that has the change; "" where nobody knows it. It needs no script to be
    loaded and may be sent again.
    """
    name = str(cell)
    keys = (names.epoch(name), names.feed(name), names.records(name))
    return ("EVAL", _ANNOUNCE, len(keys), *keys, entropy(EPOCH_BYTES).hex(), " ".join(refs), records)


async def _nowhere() -> str:
    """Tell no epoch: nobody is known who could."""
    return ""


class Announcer:
    """Keeps the budgets store told. ``run`` is its one task; ``announce_all`` may be called at any time beside it.

    ``owes``: whether a change of an earlier process may not have been told.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        cells: int,
        *,
        owes: bool = True,
        on_error: Callable[[], object] = lambda: None,
        records_epoch: Callable[[], Awaitable[str]] = _nowhere,
    ) -> None:
        """``records_epoch`` reads the epoch of the records' store; raises ``RedisError``, ``OSError``."""
        self._client = client
        self._records_epoch = records_epoch
        self.cells = cells
        self._on_error = on_error
        self._owed_to = int(owes)  # counts what could not be told
        self._told_to = 0  # how far that was told since
        self._wake = asyncio.Event()

    @property
    def owes(self) -> bool:
        """Whether some change may not be known to the budgets store."""
        return self._owed_to > self._told_to

    def owe(self) -> None:
        """Say that records may have changed and nobody knows which."""
        self._owed_to += 1
        self._wake.set()

    async def announce_all(self, refs: Iterable[str], timeout_s: float, records: str = "") -> None:
        """Tell every cell; raises ``RedisError``, ``OSError`` where one could not be told, which then is owed.

        ``records``: the records' epoch with the change. Where something is owed, everything is said to have changed:
        that covers what was owed when this telling began, and nothing that came to be owed since.
        """
        owed_to, owes = self._owed_to, self.owes
        try:
            async with asyncio.timeout(timeout_s):
                newest = await self._records_epoch() if owes else ""  # what is owed may have come after `records`
                await self._tell(() if owes else tuple(refs), newest or records)
        except BaseException:  # a cancellation too: nobody knows how far it came
            self.owe()
            raise
        if owes:
            self._told_to = max(self._told_to, owed_to)

    async def _tell(self, refs: Sequence[str], records: str) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for cell in range(self.cells):
                pipeline.execute_command(*announce(cell, refs, records))
                if not refs:  # perhaps at a new or emptied store
                    pipeline.set(names.cells(str(cell)), self.cells, nx=True)
            await pipeline.execute()

    async def retire(self, usage: Sequence[str], tenant: str, timeout_s: float) -> None:
        """Let the usage of what is no more end in its time, and say whose it was; a failure is only counted."""
        try:
            async with asyncio.timeout(timeout_s), self._client.pipeline(transaction=False) as pipeline:
                for key in usage:
                    pipeline.expire(key, RETIRED_S)
                kept = {key for key, is_there in zip(usage, await pipeline.execute(), strict=True) if is_there}
                for key in usage:
                    if key in kept:
                        pipeline.hset(key, "tenant", tenant)
                    else:  # a gate may still have its first calls to write down
                        pipeline.set(f"{key}:gone", tenant, ex=GONE_S)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._on_error()
            _log.warning("usage of what is no more stays in the budgets store: %s", error)

    async def run(self) -> None:
        """Tell what is owed, until cancelled."""
        retry_s = FIRST_RETRY_S
        while going_on():
            self._wake.clear()
            if not self.owes:
                await self._wake.wait()
            try:
                await self.announce_all((), PATIENCE_S)
                retry_s = FIRST_RETRY_S
            except (RedisError, OSError) as error:
                self._on_error()
                _log.warning("the budgets store does not know of the latest changes: %s", error)
                await rest(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
