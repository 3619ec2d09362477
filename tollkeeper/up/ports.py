"""Ports of the loopback interface: which are free, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Final

from runtime.lifecycle import CannotStart

LOOPBACK: Final = "127.0.0.1"

CHOICE: Final = range(20_000, 32_000)
"""Free ports are chosen below the range that systems hand out to clients, so that a remembered one stays free."""

_DYING_S: Final = 5.0
"""How long the processes of a machine that was killed may still hold their ports, in seconds."""


class PortTaken(CannotStart):
    """A port that was free when it was chosen was another program's when its own was to listen there."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} was taken meanwhile by another program; start again, or name another port")
        self.port = port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """Choose a free port that is not in ``taken``, and add it there."""
    for port in random.sample(CHOICE, len(CHOICE)):  # any free port will do, no secret  # nosec B311
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    raise CannotStart("no port of this machine is free")


async def claim(port: int, taken: set[int], *, refusal: str, after_crash: bool) -> int:
    """Return ``port`` if it is free, any free one for 0; raises ``CannotStart(refusal)`` where it is taken."""
    if port == 0:
        return free_port(taken)
    deadline_s = time.monotonic() + (_DYING_S if after_crash else 0)
    while port in taken or not is_free(port):
        if port in taken or time.monotonic() >= deadline_s:
            raise CannotStart(f"port {port} {refusal}")
        await asyncio.sleep(0.05)  # a port has no event for becoming free
    taken.add(port)
    return port
