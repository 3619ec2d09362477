"""How a process starts, stops and owns what runs in it. Knows no process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NoReturn

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

NOTIFY: Final = "NOTIFY_SOCKET"
"""The variable that names the socket to which a process tells that it serves: systemd's, sd_notify(3)."""

READY: Final = b"READY=1"
_log: Final = logging.getLogger(__name__)


class CannotStart(Exception):  # noqa: N818  what it says to the operator is the name
    """What the operator can mend, in one sentence: printed without a traceback, and the process exits 1."""


def tell_ready() -> None:
    """Tell whoever started this process, if they asked, that every address is bound and served."""
    path = os.environ.pop(NOTIFY, "")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(READY, "\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        _log.warning("%s: nobody could be told that this process is ready: %s", NOTIFY, error)


async def stop_requested() -> signal.Signals:
    """Wait for SIGINT or SIGTERM and return it: the process drains. A second one ends the process at once.

    Await it as soon as there is something to drain: the signals are caught only from then on.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def heard(one: signal.Signals) -> None:
        if asked.done():
            _exit_at_once(one)
        asked.set_result(one)

    for one in STOP_SIGNALS:
        loop.add_signal_handler(one, heard, one)
    return await asked


def _exit_at_once(one: signal.Signals) -> NoReturn:
    os._exit(128 + one)  # no finalisers: a drain that hangs must not hold the operator


def ending(code: int) -> str:
    """Say how a process ended: ``-9`` is "was killed by SIGKILL", ``3`` is "ended with exit code 3"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


def going_on() -> bool:
    """Whether this task is to go on; raises ``CancelledError`` when it is not. Ask it in every loop that ends so.

    redis-py sends under ``asyncio.wait_for``, which before Python 3.12 loses a cancellation that comes together with
    the end of what it waits for.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return True


async def rest(seconds: float) -> None:
    """Sleep in a loop of ``going_on``, but not when this task is to end already: a lost cancellation costs no rest."""
    going_on()
    await asyncio.sleep(seconds)


@contextmanager
def fault_told(log: logging.Logger, who: str, on_fault: Callable[[], object]) -> Iterator[None]:
    """Run a thread's work; its owner must learn of a fault that ends it, which is logged: nobody does that work now."""
    try:
        yield
    except Exception:
        log.exception("%s ended by a fault of its own", who)
        on_fault()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, object], *, name: str) -> AsyncIterator[asyncio.Task[object]]:
    """Run ``work`` under ``name`` while the body runs; afterwards it is cancelled and awaited.

    A fault of ``work`` cancels the body and is raised from here (in an ``ExceptionGroup``).
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name=name)
        try:
            yield task
        finally:
            task.cancel()
