"""How long an event loop was held at most, by what ran on it or kept the interpreter's lock without a turn for others.

What the machine did meanwhile for other processes is taken off: the time for which this one's threads wanted a
processor and had none, which the kernel counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 0.002


@dataclass
class Hold:
    """What was seen so far."""

    longest_s: float = 0.0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Hold]:
    """Watch the loop while the body runs: a task that wants a turn every ``BEAT_S`` notes how late it comes."""
    hold, loop = Hold(), asyncio.get_running_loop()

    async def beat() -> None:
        waited_s = _waited_s()
        while True:
            due_s = loop.time() + BEAT_S
            await asyncio.sleep(BEAT_S)
            late_s, now_waited_s = loop.time() - due_s, _waited_s()
            hold.longest_s = max(hold.longest_s, late_s - (now_waited_s - waited_s))
            waited_s = now_waited_s

    task = asyncio.create_task(beat(), name="loop-watch")
    try:
        yield hold
    finally:
        await asyncio.sleep(0)  # what held it last is noted too
        task.cancel()


def _waited_s() -> float:
    """For how long this process's threads have waited for a processor."""
    waited_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            waited_ns += int(file.read_text().split()[1])
    return waited_ns / 1e9
