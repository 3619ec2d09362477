"""One connection to the store for one thread: every wait is bounded by a deadline and nothing is ever sent twice.

Redis-py makes the connection (URL, authentication, TLS); the exchange itself runs here so that the deadline is
exact even when a reply dribbles in. After a timeout or a broken reply the connection is closed, because a late
reply must never be taken for the next command's. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, Final

import hiredis
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError
from redis.retry import Retry

from runtime.clock import Clock

READ_BYTES: Final = 65_536


class NotConnectedError(StoreConnectionError):
    """There is no connection: the command surely did not run."""


class NotSentError(StoreTimeoutError):
    """The deadline had passed before the command was sent: it surely did not run."""


def _reply_error(text: str) -> RedisError:
    """Turn an error reply into redis-py's exception; only NOSCRIPT needs telling apart."""
    kind = NoScriptError if text.startswith("NOSCRIPT") else ResponseError
    return kind(text)


class StoreLink:
    """A bounded link. ``connect`` first; after any ``StoreConnectionError`` or ``StoreTimeoutError`` make a new one."""

    def __init__(self, url: str, clock: Clock, *, connect_timeout_ms: float = 1_000) -> None:
        self._clock = clock
        timeout_s = connect_timeout_ms / 1000
        pool = ConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._connection = pool.make_connection()
        self._socket: socket.socket | None = None
        self._reader = self._new_reader()

    @staticmethod
    def _new_reader() -> hiredis.Reader:
        return hiredis.Reader(protocolError=StoreConnectionError, replyError=_reply_error)

    def connect(self) -> None:
        """Connect, authenticate and select; raises ``redis.exceptions.RedisError`` within the connect timeout."""
        self._connection.connect()  # type: ignore[no-untyped-call]
        # The deadline must hold for a whole exchange, which redis-py's own read loop cannot promise.
        self._socket = self._connection._sock  # type: ignore[attr-defined]  # noqa: SLF001
        if self._socket is not None and self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._reader = self._new_reader()

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self._socket is not None

    def execute(self, deadline_ms: float, *command: str | bytes | float) -> Any:
        """Send one command and return its reply, all before ``deadline_ms`` on the monotonic clock.

        Raises ``ResponseError`` for an error reply (the link stays usable), ``StoreTimeoutError`` past the
        deadline and ``StoreConnectionError`` on a broken link (the outcome of the command is then unknown).
        """
        if self._socket is None:
            raise NotConnectedError("not connected to the store")
        if self._clock.monotonic_ms() >= deadline_ms:
            raise NotSentError("the deadline had passed before the command was sent")
        try:
            reply = self._exchange(self._socket, deadline_ms, command)
        except (OSError, StoreConnectionError, StoreTimeoutError) as error:
            self.close()
            if isinstance(error, TimeoutError | StoreTimeoutError):
                raise StoreTimeoutError("the store did not answer in time") from error
            raise StoreConnectionError(f"the link to the store broke: {error}") from error
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def _exchange(self, sock: socket.socket, deadline_ms: float, command: tuple[Any, ...]) -> Any:
        sock.settimeout(self._left_s(deadline_ms))
        sock.sendall(hiredis.pack_command(command))
        while (reply := self._reader.gets()) is False:
            sock.settimeout(self._left_s(deadline_ms))
            received = sock.recv(READ_BYTES)
            if not received:
                raise StoreConnectionError("closed by the store")
            self._reader.feed(received)
        return reply

    def _left_s(self, deadline_ms: float) -> float:
        left_ms = deadline_ms - self._clock.monotonic_ms()
        if left_ms <= 0:
            raise StoreTimeoutError("the deadline has passed")
        return left_ms / 1000

    def closed_by_store(self) -> bool:
        """Whether the other end has gone; takes nothing off the connection, so any thread may ask."""
        sock = self._socket
        if sock is None:
            return True
        try:
            # A second descriptor, because TLS sockets cannot peek; their bytes are not read either.
            with socket.socket(fileno=os.dup(sock.fileno())) as peer:
                return peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def interrupt(self) -> None:
        """Wake whoever waits on this link, from another thread; its command fails as on a broken connection."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket = None
        self._connection.disconnect()  # type: ignore[no-untyped-call]
