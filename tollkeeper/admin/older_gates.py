"""Whether a gate of the release before may be about, as an admin sees it: by heartbeats, and what older gates leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from admin.services import Stores
from gate.formats import NEWEST, Heard, WrittenFormat, heard
from gate.names import GATES
from ratelimit.names import old_rest_key
from runtime.clock import Clock


def routes_are_read(stores: Stores, cells: int, clock: Clock) -> Callable[[], Awaitable[bool]]:
    """Make what says whether surely every gate reads routes: those that read the newest format of budgets do.

    It is asked every few seconds, and sure once none of the release before was seen for a minute. A gate whose format
    is pinned for a way back counts as one of those.
    """
    written = WrittenFormat(NEWEST, clock.monotonic_ms)

    async def are_read() -> bool:
        written.hear(await traces(stores, cells))
        return written() == NEWEST

    return are_read


async def traces(stores: Stores, cells: int) -> Heard:
    """Look once for gates, in both stores; raises ``RedisError``, ``OSError``."""
    members: Any = await stores.records.zrange(GATES, 0, -1)
    async with stores.budgets.pipeline(transaction=False) as pipeline:
        for cell in range(cells):
            pipeline.exists(old_rest_key(str(cell)))
        return heard(members, old_settles=any(await pipeline.execute()))
