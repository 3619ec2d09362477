"""Bounds what connections to an HTTP server may take: how many there are, and for how long one may be of no use.

aiohttp bounds headers in size and number, and closes a connection on which no request was completed for a while
(``idle_s``), whatever came of it until then. It bounds neither the number of connections nor how long somebody may
leave an answer unread: that is done here, around its protocol. Knows no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from prometheus_client import CollectorRegistry, Counter

MAX_LINE_BYTES: Final = 8_190
"""Of a request line, and of each header: what a client, its proxies and a token of ours need many times over."""

MAX_HEADERS: Final = 64

FACE: Final = "--http-listen"
"""The option that names where a process tells its health and metrics."""

_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: tollkeeper\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """What connections to one address may take."""

    connections: int = 500  # at once: half of the files that a process may have open where nobody raised it
    idle_s: float = 75.0  # from its opening, or from an answer, until the headers of a request are complete
    answer_s: float = 30.0  # for the reader of an answer to take in what the kernel does not hold for it
    lingering_s: float = 5.0  # for a body that nobody asked for, after the answer


API: Final = HttpBounds()

MakeProtocol = Callable[[], asyncio.BaseProtocol]
"""Makes the protocol of a connection that was accepted."""


def uncounted() -> None:
    """Nobody counts what was refused."""


def refused_connections(registry: CollectorRegistry) -> Counter:
    """Make the counter of connections that were one too many, by the option that names their address."""
    return Counter(
        "tollkeeper_http_connections_refused",
        "HTTP connections refused because there were as many as may be.",
        ["listener"],
        registry=registry,
    )


class Connections:
    """Makes the protocol of each connection to one address."""

    def __init__(self, make: MakeProtocol, bounds: HttpBounds, refused: Callable[[], object]) -> None:
        self._make = make
        self._bounds = bounds
        self._refused = refused
        self._open = 0

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of a connection that was accepted."""
        return _Connection(cast("asyncio.Protocol", self._make()), self, self._bounds.answer_s)

    def enter(self) -> bool:
        """Count a connection; False where it is one too many."""
        if self._open >= self._bounds.connections:
            self._refused()
            return False
        self._open += 1
        return True

    def leave(self) -> None:
        """Uncount one that had entered."""
        self._open -= 1


class _Connection(asyncio.Protocol):
    """One connection: what happens to it is the inner protocol's business, unless it was one too many."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections, answer_s: float) -> None:
        self._inner = inner
        self._connections = connections
        self._answer_s = answer_s
        self._has_entered = False
        self._transport: asyncio.Transport | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._has_entered = self._connections.enter()
        if not self._has_entered:
            self._transport.write(_FULL)
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=0)  # whatever the kernel does not take is waited for, bounded
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._has_entered:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._has_entered else None

    def pause_writing(self) -> None:
        if self._has_entered and self._transport:
            self._unread = asyncio.get_running_loop().call_later(self._answer_s, self._transport.abort)
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._has_entered:
            self._stop_waiting()
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._has_entered:
            self._connections.leave()
            self._inner.connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._unread:
            self._unread.cancel()
