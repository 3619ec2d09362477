"""Whether a host that callers are to use has an address, as far as this machine can tell within a moment.

It is for a warning alone: what is not known in time is not said, and no answer waits longer for it than ``WAIT_S``.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Final

WAIT_S: Final = 0.2
"""Longest wait of an answer for a name server, in seconds."""
MOST_AT_ONCE: Final = 4
"""Looks that may hang at once: a system's resolver cannot be told to give up. Beyond, nobody asks."""

_PRIVATE: Final = ("local", "localhost", "internal", "intranet", "lan", "home", "corp", "private", "svc", "arpa")
"""Last labels of names that this machine need not know: they are looked up inside, or nowhere."""
_NOWHERE: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class HostNames:
    """Asks the system's resolver, in threads that nobody waits for at the end."""

    def __init__(self, look: Callable[[str], object] | None = None) -> None:
        """``look``: raises ``OSError`` where a name has no address; by default ``getaddrinfo``."""
        self._look = look or (lambda host: socket.getaddrinfo(host, None))
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)

    async def is_nowhere(self, host: str) -> bool:
        """Whether it was said in time that a name has no address. Private names and what is unknown are not."""
        last = host.rpartition(".")[2]
        if last == host or last in _PRIVATE or not self._free.acquire(blocking=False):
            return False
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()
        threading.Thread(target=self._ask, args=(host, loop, told), name="host-look", daemon=True).start()
        try:
            return await asyncio.wait_for(told, WAIT_S)
        except TimeoutError:
            return False

    def _ask(self, host: str, loop: asyncio.AbstractEventLoop, told: asyncio.Future[bool]) -> None:
        try:
            self._look(host)
            nowhere = False
        except OSError as error:
            nowhere = error.errno in _NOWHERE
        finally:
            self._free.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell, told, nowhere)


def _tell(told: asyncio.Future[bool], nowhere: bool) -> None:  # noqa: FBT001  by place: a callback's argument
    if not told.done():
        told.set_result(nowhere)
