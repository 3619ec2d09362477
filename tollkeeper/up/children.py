"""The processes of the machine: started in order, watched, stopped in reverse, gone when we are gone.

A child has a session of its own (the terminal's Ctrl-C does not reach it) and a log file. Before it becomes its
program it tells its process id to the guardian, a shell that waits for the end of a pipe that only we hold open:
should we be killed, the guardian kills every child.

A child of our own tells by a socket of the state folder that it listens (``NOTIFY_SOCKET``). A question at its port
would not do: whoever took that port may answer it, and would be sent passwords and keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess  # to start our own programs  # nosec B404
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runtime.lifecycle import NOTIFY, READY, CannotStart, ending
from tollkeeper.up.logs import Logs
from tollkeeper.up.ports import PortTaken, is_free

READY_S: Final = 30.0
"""Longest wait for a child's readiness, in seconds; on a slow machine a start takes two."""

STOP_S: Final = 5.0
"""Longest wait for a child to stop by itself, in seconds; then it is killed."""

POLL_S: Final = 0.03

_GUARDIAN: Final = 'while read -r one; do [ "$one" = bye ] && exit; all="$all -$one"; done; kill -s KILL -- $all'
_LEASHED: Final = 'echo $$ >&0; exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What is started and how it is known to be ready."""

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str]
    ports: Sequence[int] = ()  # where it will listen
    told: Path | None = None  # the socket by which it tells that it listens; None: a foreign program


class ChildDied(CannotStart):
    """A child ended by itself; the message holds its last words."""


class Children:
    """The running children; leaving the context stops them all, the last started first."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._running: list[tuple[ChildSpec, asyncio.subprocess.Process]] = []
        self._starting: ChildSpec | None = None
        self._deaths: asyncio.Queue[tuple[str, int]] = asyncio.Queue()  # name and return code
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._guardian = subprocess.Popen(  # noqa: ASYNC220, S603  the fork is all there is to it; ours, not input  # nosec B603
            ["/bin/sh", "-c", _GUARDIAN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watches.append(asyncio.create_task(self._logs.keep_small(), name="logs"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.cancel()
        for _, process in reversed(self._running):
            await _stop(process)
        with contextlib.suppress(BrokenPipeError):
            self._guardian.communicate(b"bye\n", timeout=STOP_S)

    async def start(self, spec: ChildSpec) -> None:
        """Start a child and return once it is ready; raises ``PortTaken``, or ``CannotStart`` with its last words."""
        self._starting = spec
        with _told(spec.told) as has_told:
            process = await self._spawn(spec)
            deadline_s = time.monotonic() + READY_S
            while not (has_told() and await spec.ready()):
                if process.returncode is not None:
                    _look_for_thief(spec)
                    end = ending(process.returncode)
                    raise CannotStart(f"{spec.name} {end} during its start ({self._logs.last_words(spec.name)})")
                if time.monotonic() > deadline_s:
                    words = self._logs.last_words(spec.name)
                    raise CannotStart(f"{spec.name} was not ready within {READY_S:.0f} s ({words})")
                await asyncio.sleep(POLL_S)  # a foreign program's readiness has no event
        self._starting = None

    async def death(self) -> None:
        """Wait for any child to end, then raise ``PortTaken``, or ``ChildDied`` with its last words."""
        name, code = await self._deaths.get()
        if self._starting is not None and self._starting.name == name:
            _look_for_thief(self._starting)
        raise ChildDied(f"{name} {ending(code)}, so everything was stopped ({self._logs.last_words(name)})")

    async def _spawn(self, spec: ChildSpec) -> asyncio.subprocess.Process:
        with self._logs.fresh(spec.name) as log:
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _LEASHED, spec.name, *spec.command),
                stdin=self._guardian.stdin,
                stdout=log,
                stderr=log,
                env={**spec.environment, **({NOTIFY: str(spec.told)} if spec.told else {})},
                start_new_session=True,
            )
        self._running.append((spec, process))
        self._watches.append(asyncio.create_task(self._watch(spec.name, process), name=f"watch-{spec.name}"))
        return process

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._deaths.put_nowait((name, await process.wait()))


@contextlib.contextmanager
def _told(path: Path | None) -> Iterator[Callable[[], bool]]:
    """Hear a child at this socket; yields whether it has told that it listens, which a foreign program never does."""
    if path is None:
        yield lambda: True
        return
    heard = False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        path.unlink(missing_ok=True)
        own.bind(str(path))
        own.setblocking(False)

        def has_told() -> bool:
            nonlocal heard
            with contextlib.suppress(BlockingIOError):
                heard = heard or own.recv(len(READY) + 1) == READY
            return heard

        try:
            yield has_told
        finally:
            path.unlink(missing_ok=True)


def _look_for_thief(spec: ChildSpec) -> None:
    """Raise ``PortTaken`` where a child that has ended would have listened at another program's port."""
    for port in spec.ports:
        if not is_free(port):
            raise PortTaken(port)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        _kill_group(process.pid)
        await process.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
