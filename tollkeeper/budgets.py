"""``tollkeeper budgets format 1``: brings stored budgets back to the format that the release before reads.

For a rollback, beside gates that run: they are pinned to format 1 first (``--store-format 1``), so nothing is written
in format 2 while this looks. It goes through the budgets a page at a time and rewrites what is of format 2 by the
script that takes, all of a value's windows at one instant, so no call is missed and none counted twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, Literal

import click
import redis.asyncio
from redis.exceptions import RedisError

from gate.formats import OLDEST, WRITTEN, format_of
from gate.heartbeat import KEPT_MS
from gate.names import GATES
from ratelimit.names import UNFENCED, budget_prefix, held_key
from ratelimit.tokens.reservations import is_format_2
from ratelimit.windows.limiter import Execute, Limiter
from runtime.clock import SystemClock
from runtime.lifecycle import CannotStart
from runtime.store.clients import clients_of
from runtime.store.cluster import ClusterLink
from runtime.store.link import StoreLink
from runtime.store.urls import is_cluster
from tollkeeper.store_settings import StoreSettings

PAGE: Final = 100
"""Most budgets of one script: it keeps the store for some milliseconds."""
PROGRESS_S: Final = 5.0
PATIENCE_S: Final = 5.0
_NEWER: Final = b"\2"


class BudgetsFormatSettings(StoreSettings):
    """Bring stored budgets back to format 1, which gates of the release before read, beside gates that run.

    Start every gate with --store-format 1 first. Run it again until it says that nothing is left, then start the gates
    of the release before.
    """

    format: Literal["1"]
    """The format to bring them to."""


async def bring_to_format(settings: BudgetsFormatSettings) -> None:
    """Rewrite what is of a newer format and say what is left; raises ``CannotStart`` while something is."""
    try:
        async with clients_of(settings.records, settings.budgets, patience_s=PATIENCE_S) as (records, budgets):
            await _require_pinned(records)
            with _linked(settings.budgets) as execute:
                left = await _bring_back(budgets, settings.cells, execute)
    except (RedisError, OSError) as error:
        raise CannotStart(f"a store cannot be used: {error}; run it again, what is rewritten stays so") from error
    if left:
        raise CannotStart(
            f"{left} calls that were admitted under the newer format have not ended yet: wait for them, two hours at"
            " most, and run it again. The release before would not settle them"
        )
    click.echo("Nothing of a newer format is left: gates of the release before can start.")


async def _require_pinned(records: redis.asyncio.Redis) -> None:
    """Refuse where a gate may write the newer format meanwhile; raises ``CannotStart``."""
    seconds, _ = await records.time()
    beating: Sequence[Any] = await records.zrangebyscore(GATES, seconds * 1000 - KEPT_MS, "+inf")
    gates = set(beating) - {WRITTEN}
    free = sum(format_of(one) > OLDEST for one in gates)
    if free:
        raise CannotStart(
            f"{free} of {len(gates)} gates may write the newer format: start all of them with --store-format 1. "
            "One that was stopped counts for a minute"
        )


async def _bring_back(budgets: redis.asyncio.Redis, cells: int, execute: Execute) -> int:
    """Rewrite all budgets of the newer format; how many reservations of it are left."""
    left, progress = 0, _Progress()
    for cell in range(cells):
        name = str(cell)
        limiter = Limiter(cell=name, epoch_key=UNFENCED.format(name), feed_key=f"{UNFENCED.format(name)}:feed")
        prefix = budget_prefix(name)
        async for page in _pages(budgets, prefix):
            newer = [one for one in page if await budgets.getrange(one, 0, 0) == _NEWER]
            if newer:
                subjects = [one.decode().removeprefix(prefix) for one in newer]
                await asyncio.to_thread(limiter.rewrite, execute, subjects, epoch="")
            progress.note(len(page), len(newer))
        async for _, record in budgets.hscan_iter(held_key(name), count=PAGE):
            left += is_format_2(record)
    progress.tell()
    return left


async def _pages(budgets: redis.asyncio.Redis, prefix: str) -> AsyncIterator[list[bytes]]:
    """The names of a cell's budgets, so many at once."""
    page: list[bytes] = []
    async for key in budgets.scan_iter(f"{prefix}*", count=PAGE):
        page.append(key)
        if len(page) == PAGE:
            yield page
            page = []
    yield page


class _Progress:
    """Says now and then how far it is."""

    def __init__(self) -> None:
        self._seen = self._rewritten = 0
        self._told_s = time.monotonic()

    def note(self, seen: int, rewritten: int) -> None:
        """Count a page."""
        self._seen += seen
        self._rewritten += rewritten
        if time.monotonic() - self._told_s >= PROGRESS_S:
            self.tell()
            self._told_s = time.monotonic()

    def tell(self) -> None:
        """Say it."""
        click.echo(f"{self._seen} budgets looked at, {self._rewritten} brought to format 1")


@contextlib.contextmanager
def _linked(url: str) -> Iterator[Execute]:
    """What runs a script where its keys are."""
    clock = SystemClock()
    link = (ClusterLink if is_cluster(url) else StoreLink)(url, clock)
    link.connect()
    try:
        yield lambda *command: link.execute(clock.monotonic_ms() + PATIENCE_S * 1000, *command)
    finally:
        link.close()
