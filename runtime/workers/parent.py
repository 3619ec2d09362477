"""Several processes that do the same work, side by side: started, asked, replaced when they die, ended together.

Each place has a number from 0 and a process of its own; what is known of it comes over its wire (``wire.py``), and
nothing else is shared. Should we be killed, the wires end and the workers with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, Counter

from runtime.lifecycle import CannotStart, ending
from runtime.readiness import Readiness, Trouble
from runtime.workers import troubles
from runtime.workers.snapshots import Summed
from runtime.workers.wire import Message, Wire

START_S: Final = 30.0
"""Longest wait until a worker has begun, in seconds."""
ASK_S: Final = 0.5
"""Longest wait for a worker's answer, in seconds; its last report serves then."""
SILENT_S: Final = 5.0
"""A worker that has not reported for so long is not counted on, in seconds."""
STOP_S: Final = 10.0
"""Longest wait for a worker to end by itself after its drain, in seconds; then it is killed."""
FIRST_BACKOFF_S: Final = 0.1
LAST_BACKOFF_S: Final = 10.0
"""A worker that dies again and again is started every ten seconds at most."""
STEADY_S: Final = 30.0
"""A worker that lived so long is started again without delay when it dies."""

_log = logging.getLogger(__name__)


def restarts_counter(registry: CollectorRegistry) -> Counter:
    """The parent's one instrument."""
    return Counter(
        "tollkeeper_worker_restarts",
        "Workers that ended unasked and were started again.",
        ["worker"],
        registry=registry,
    )


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How the workers are started."""

    command: Sequence[str]  # the number of the wire's file descriptor follows
    environment: Mapping[str, str]
    settings: Sequence[Mapping[str, str]]  # of each worker, as text; `listen` among them
    drain_s: float


class _Place:
    """One worker's place: the process in it now, and what it said last."""

    def __init__(self, number: int, spec: WorkerSpec, sums: Summed) -> None:
        self.name = f"worker {number}"
        self._source = str(number)
        self._spec = spec
        self._settings = dict(spec.settings[number])
        self._sums = sums
        self._process: asyncio.subprocess.Process | None = None
        self._wire: Wire | None = None
        self._trouble = "it is starting"
        self._state: Message | None = None
        self._heard_s = 0.0
        self._asked = 0
        self._answers: dict[int, asyncio.Future[None]] = {}

    async def start(self) -> None:
        """Start a process and wait until it has begun; raises ``CannotStart`` with its sentence, or how it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._wire = await Wire.over(ours)
            self._process = await asyncio.create_subprocess_exec(
                *self._spec.command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self._spec.environment,
            )
        await self._wire.send({"settings": self._settings, "name": self.name})
        await self._await_start(self._wire, self._process)

    async def _await_start(self, wire: Wire, process: asyncio.subprocess.Process) -> None:
        try:
            said = await asyncio.wait_for(wire.receive(), START_S)
        except TimeoutError:
            await self._kill()
            raise CannotStart(f"{self.name} did not begin within {START_S:.0f} s") from None
        if said is None or "started" not in said:
            code = await self._kill() if said is None else await process.wait()
            sentence = said["cannot_start"] if said else f"{ending(code)} during its start"
            raise CannotStart(f"{self.name}: {sentence}")
        self._settings |= said["started"]  # the ports that were free stay its own
        self._trouble = "it has not reported yet"
        _log.info("%s (process %d) listens: %s", self.name, process.pid, ", ".join(said["started"].values()))

    async def _kill(self) -> int:
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await self._process.wait()

    async def attend(self) -> str:
        """Hear the worker until it ends; how it ended. What it counted stays in the sum."""
        assert self._wire is not None  # noqa: S101  it was started  # nosec B101
        assert self._process is not None  # noqa: S101  # nosec B101
        while (message := await self._wire.receive()) is not None:
            self._hear(message)
        self._state = None
        self._sums.retire(self._source)
        self._wire.close()
        how = ending(await self._process.wait())
        self._trouble = f"it {how} and is started again"
        return how

    def _hear(self, report: Message) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        self._state = report["state"]
        self._sums.update(self._source, report["metrics"])
        answered = self._answers.pop(report.get("answer", 0), None)
        if answered is not None and not answered.done():
            answered.set_result(None)

    def cannot_start(self, error: CannotStart) -> None:
        """Remember why there is no process."""
        self._trouble = f"it could not be started again: {error}"

    async def ask(self) -> None:
        """Have it report now; waits a bounded time."""
        if self._wire is None or self._state is None:
            return
        self._asked += 1
        number, answered = self._asked, asyncio.get_running_loop().create_future()
        self._answers[number] = answered
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_S):
                await self._wire.send({"ask": number})
                await answered
        self._answers.pop(number, None)

    async def end(self, drain_s: float) -> None:
        """Have it drain and end; kill it if it does not."""
        if self._process is None or self._wire is None:
            return
        try:
            async with asyncio.timeout(drain_s + STOP_S):
                await self._wire.send({"drain": True})
                await self._process.wait()
        except TimeoutError:
            _log.error("%s did not end by itself and is killed", self.name)
            await self._kill()
        self._wire.close()

    def problems(self) -> list[Trouble]:
        """Why it cannot be counted on, if so."""
        if self._state is None:
            return [troubles.WORKER_AWAY.found(f"{self.name}: {self._trouble}")]
        silent_s = asyncio.get_running_loop().time() - self._heard_s
        if silent_s > SILENT_S:
            return [troubles.WORKER_AWAY.found(f"{self.name}: it has said nothing for {silent_s:.0f} s")]
        return _of_worker(self.name, self._state["problems"])

    def warnings(self) -> list[Trouble]:
        """What it warns of."""
        return _of_worker(self.name, self._state["warnings"]) if self._state else []

    def facts(self) -> dict[str, Any]:
        """What it says of itself."""
        known = self._state or {}
        own = {key: value for key, value in known.items() if key not in {"ready", "problems", "warnings"}}
        place = {"worker": self._source, "listen": self._settings["listen"], "pid": self.pid}
        return {**place, "ready": not self.problems(), **own}

    @property
    def pid(self) -> int | None:
        """Of the process in this place, if there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None


def _of_worker(name: str, told: Sequence[Mapping[str, str]]) -> list[Trouble]:
    return [Trouble(one["code"], f"{name}: {one['problem']}", one["advice"]) for one in told]


class Workers:
    """All places. Leaving the context ends every worker."""

    def __init__(self, spec: WorkerSpec, sums: Summed, restarts: Counter) -> None:
        self._spec = spec
        self._places = [_Place(number, spec, sums) for number in range(len(spec.settings))]
        self._restarts = [restarts.labels(str(number)) for number in range(len(spec.settings))]
        self._draining = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draining.set()
        await asyncio.gather(*(place.end(self._spec.drain_s) for place in self._places))

    async def start(self) -> None:
        """Start all at once; raises the first ``CannotStart``."""
        await asyncio.gather(*(place.start() for place in self._places))

    async def keep_until(self, stop: Awaitable[object]) -> None:
        """Hear all workers and replace those that die until ``stop``; then drain, and end once all have ended."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._keep(place, restarts.inc), name=place.name)
                for place, restarts in zip(self._places, self._restarts, strict=True)
            ]
            await stop
            self._draining.set()
            await asyncio.gather(*(place.end(self._spec.drain_s) for place in self._places))
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, place: _Place, restarted: Callable[[], object]) -> None:
        """Hear one worker; start it again when it dies, sooner if it had lived long."""
        clock = asyncio.get_running_loop().time
        backoff_s = FIRST_BACKOFF_S
        while not self._draining.is_set():
            begun_s = clock()
            how = await place.attend()
            if self._draining.is_set():
                return
            backoff_s = FIRST_BACKOFF_S if clock() - begun_s > STEADY_S else min(2 * backoff_s, LAST_BACKOFF_S)
            _log.warning("%s %s; it is started again in %.1f s", place.name, how, backoff_s)
            await asyncio.sleep(backoff_s)
            await self._start_again(place, restarted)

    async def _start_again(self, place: _Place, restarted: Callable[[], object]) -> None:
        """Try until it has begun: what could not start now may start later."""
        backoff_s = FIRST_BACKOFF_S
        while not self._draining.is_set():
            restarted()
            try:
                await place.start()
            except CannotStart as error:
                place.cannot_start(error)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
                _log.warning("%s; tried again in %.1f s", error, backoff_s)
                await asyncio.sleep(backoff_s)
            else:
                return

    async def refresh(self) -> None:
        """Have every worker report now; bounded."""
        await asyncio.gather(*(place.ask() for place in self._places))

    def readiness(self) -> Readiness:
        """Ready while every worker is; each problem names its worker."""
        problems = [trouble for place in self._places for trouble in place.problems()]
        if self._draining.is_set():
            problems.insert(0, troubles.WORKERS_DRAINING.found("the workers are about to stop"))
        warnings = [trouble for place in self._places for trouble in place.warnings()]
        return Readiness(tuple(problems), tuple(warnings), {"workers": [place.facts() for place in self._places]})
