"""Keeping one thing in step with another: looked at when it is due and now and then, and tried again after a failure.

Owns when; who looks owns what, and counts what fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from runtime.lifecycle import going_on, rest

RESYNC_S: Final = 30.0
"""Longest time between two looks, in seconds: what nobody told of is found then."""

PAUSE_S: Final = 0.1
"""Between two looks: what changes together is looked at once."""

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 5.0
"""The wait after a failure doubles from the first to the last, in seconds."""


async def keep_in_step(due: asyncio.Event, look: Callable[[], Awaitable[bool]], *, resync_s: float = RESYNC_S) -> None:
    """Look until cancelled: whenever ``due`` is set, and soon again after a look that returned False."""
    retry_s = FIRST_RETRY_S
    while going_on():
        with suppress(TimeoutError):
            async with asyncio.timeout(resync_s):
                await due.wait()
        due.clear()
        if await look():
            retry_s = FIRST_RETRY_S
            await rest(PAUSE_S)
            continue
        await asyncio.sleep(retry_s)
        retry_s = min(2 * retry_s, LAST_RETRY_S)
        due.set()
