"""One worker of a gate: ``python -m tollkeeper.gate.worker FD``, started by its parent with their wire open as FD."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys

from runtime.collector import spare_what_lives
from runtime.http.face import new_registry
from runtime.lifecycle import CannotStart, running
from runtime.settings import read
from runtime.workers.wire import Message, Wire
from runtime.workers.worker import Worker, refusals_told
from tollkeeper.cli import log_as_asked
from tollkeeper.gate.app import GateSettings, making_gate

_log = logging.getLogger(__name__)


async def _run(end: socket.socket) -> int:
    """Work until the parent says so or has gone; the exit code."""
    wire = await Wire.over(end)
    opening = await wire.receive()
    if opening is None:
        return 0
    code = 0
    try:
        await _work(wire, opening)
    except* CannotStart as errors:
        code = 1
        for error in errors.exceptions:  # what the operator can mend is a sentence each
            _log.error("%s", error)
    return code


async def _work(wire: Wire, opening: Message) -> None:
    settings = read(GateSettings, opening["settings"])
    log_as_asked(settings, opening["name"])
    registry = new_registry()
    async with contextlib.AsyncExitStack() as stack:
        async with refusals_told(wire):
            made = stack.enter_context(making_gate(settings, registry))
            made.gate.start()
            spare_what_lives()
        await stack.enter_async_context(running(made.keep_secrets(), name="secrets-watch"))
        await stack.enter_async_context(running(made.keep_descriptors(), name="descriptors-watch"))
        worker = Worker(
            wire,
            made.gate,
            bound=made.bound(),
            registry=registry,
            readiness=made.readiness,
            drain_s=settings.drain_s,
        )
        await worker.run(made.fault)


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(socket.socket(fileno=int(sys.argv[1])))))
