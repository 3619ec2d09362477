"""The worker's side of the workers: does its work, reports, and ends when its parent says so or has gone.

Knows no work: that is a ``Work``. Must not outlive the parent: the end of the wire ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from runtime.lifecycle import STOP_SIGNALS, CannotStart
from runtime.readiness import Readiness
from runtime.workers.snapshots import snapshot_of
from runtime.workers.wire import Wire

REPORT_S: Final = 1.0
"""How often a worker reports unasked: what it counted since is lost when it is killed."""

MOST_SHARE: Final = 0.02
"""A report that takes long is made less often: at most this share of the time goes into reports."""


class Work(Protocol):
    """What a worker does."""

    def drain(self) -> None:
        """Say that it is about to end."""
        ...

    def stop(self) -> None:
        """End it. Bounded."""
        ...


@contextlib.asynccontextmanager
async def refusals_told(wire: Wire) -> AsyncIterator[None]:
    """Tell the parent too of a ``CannotStart`` while the work is made and started."""
    try:
        yield
    except CannotStart as error:
        await wire.send({"cannot_start": str(error)})
        raise


class Worker:
    """One piece of work that has been started, its parent's wire and its reports."""

    def __init__(
        self,
        wire: Wire,
        work: Work,
        *,
        bound: Mapping[str, str],
        registry: CollectorRegistry,
        readiness: Callable[[], Readiness],
        drain_s: float,
    ) -> None:
        """``bound``: the settings that say where it listens, with the ports that were bound."""
        self._bound = dict(bound)
        self._wire = wire
        self._work = work
        self._registry = registry
        self._readiness = readiness
        self._drain_s = drain_s
        self._draining = asyncio.Event()
        self._hung_up = asyncio.Event()

    async def run(self, fault: asyncio.Event) -> None:
        """Work until told to drain, until the parent has gone, or until a fault, which is raised."""
        await self._wire.send({"started": self._bound})
        for one in STOP_SIGNALS:  # sent to a whole group, they come beside the parent's word
            asyncio.get_running_loop().add_signal_handler(one, self._draining.set)
        tasks = [asyncio.create_task(self._listen(), name="worker-listen")]
        tasks.append(asyncio.create_task(self._report_often(), name="worker-report"))
        try:
            await self._until_end(fault)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.to_thread(self._work.stop)
            await self._report()

    async def _until_end(self, fault: asyncio.Event) -> None:
        if await _first(self._draining, self._hung_up, fault) is self._draining:
            self._work.drain()
            await self._report()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hung_up.wait(), self._drain_s)
        if fault.is_set():
            raise CannotStart("the batch loop ended by a fault of its own; see the log above")

    async def _listen(self) -> None:
        while (message := await self._wire.receive()) is not None:
            if message.get("drain"):
                self._draining.set()
            if "ask" in message:
                await self._report(answer=message["ask"])
        self._hung_up.set()

    async def _report_often(self) -> None:
        while True:
            spent_s = await self._report()
            await asyncio.sleep(max(REPORT_S, spent_s / MOST_SHARE))

    async def _report(self, **more: Any) -> float:
        """Tell the parent how it is and what was counted; the seconds it took."""
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        report = {"state": self._readiness().document(), "metrics": snapshot_of(self._registry)}
        await self._wire.send(report | more)
        return clock() - begun_s


async def _first(*events: asyncio.Event) -> asyncio.Event:
    waits = {asyncio.create_task(event.wait()): event for event in events}
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return waits[done.pop()]
