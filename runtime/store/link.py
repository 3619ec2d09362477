"""One connection to the store for one thread: every wait is bounded by a deadline and nothing is ever sent twice.

``runtime/store/dial.py`` makes the connection; the exchange itself runs here so that the deadline is exact even when a
reply dribbles in. After a timeout or a broken reply the connection is closed, because a late reply must never be
taken for the next command's. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, Self

import hiredis
from redis.connection import ConnectionInterface
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeoutError

from runtime.clock import Clock
from runtime.store.dial import dial

READ_BYTES: Final = 65_536
"""Read at once; above TLS's largest record (16 KiB), so nothing decrypted stays behind that no selector sees."""

_NOT_YET: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a connection that never waits by itself says where it would have to."""


class NotConnectedError(StoreConnectionError):
    """There is no connection: the command surely did not run."""


class NotSentError(StoreTimeoutError):
    """The deadline had passed before the command was sent: it surely did not run."""


Command = tuple[str | bytes | float, ...]
"""A command and its arguments: ``("GET", "tk:epoch:{0}")``."""

_KINDS: Final[Mapping[str, type[RedisError]]] = {
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "OOM": OutOfMemoryError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
}
_REDIRECTIONS: Final = {"MOVED": MovedError, "ASK": AskError}


_pack: Final[Callable[[Command], bytes]] = hiredis.pack_command  # type: ignore[assignment]  # its stub says 1-tuple


def _reply_error(text: str) -> RedisError:
    """Turn an error reply into redis-py's exception. NOSCRIPT and those of a Cluster prove that nothing ran."""
    code, _, rest = text.partition(" ")
    redirection = _REDIRECTIONS.get(code)
    if redirection is not None:
        with contextlib.suppress(ValueError):  # not "slot host:port": an error like any other
            return redirection(rest)
    return _KINDS.get(code, ResponseError)(text)


class Link(Protocol):
    """What a keeper keeps: a link to one server, or to a Cluster."""

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        ...

    @property
    def whole(self) -> bool:
        """Whether commands can be sent to every server that they may be for."""
        ...

    def connect(self) -> None:
        """Connect; raises ``RedisError``."""
        ...

    def mended(self) -> tuple[Self, RedisError | OSError | None]:
        """Return the link for further use, with all connections that can be had, and what is wrong with the others."""
        ...

    def closed_by_store(self) -> bool:
        """Whether the other end has gone; any thread may ask."""
        ...

    def any_closed_by_store(self) -> bool:
        """Whether one of the servers that it leads to has gone; any thread may ask."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class StoreLink:
    """A bounded link. ``connect`` first; after any ``StoreConnectionError`` or ``StoreTimeoutError`` make a new one."""

    def __init__(self, url: str, clock: Clock, *, connect_timeout_ms: float = 1_000) -> None:
        self._url = url
        self._clock = clock
        self._connect_timeout_ms = connect_timeout_ms
        self._connection: ConnectionInterface | None = None
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._reader = self._new_reader()

    @staticmethod
    def _new_reader() -> hiredis.Reader:
        return hiredis.Reader(protocolError=StoreConnectionError, replyError=_reply_error)

    def connect(self) -> None:
        """Connect, authenticate and select; raises ``redis.exceptions.RedisError`` within the connect timeout."""
        connection: Any = dial(self._url, self._clock, self._clock.monotonic_ms() + self._connect_timeout_ms)
        self._connection = connection
        # The deadline must hold for a whole exchange, which redis-py's own read loop cannot promise.
        self._socket = sock = connection._sock  # noqa: SLF001
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(0)  # every wait is ours: sent, waited and read, three system calls an exchange
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._reader = self._new_reader()

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self._socket is not None

    @property
    def whole(self) -> bool:
        """The same: there is one server."""
        return self._socket is not None

    def execute(self, deadline_ms: float, *command: str | bytes | float) -> Any:
        """Send one command and return its reply, all before ``deadline_ms`` on the monotonic clock.

        Raises ``ResponseError`` for an error reply (the link stays usable), ``StoreTimeoutError`` past the
        deadline and ``StoreConnectionError`` on a broken link (the outcome of the command is then unknown).
        """
        sock = self._ready_until(deadline_ms)
        try:
            self._send(sock, deadline_ms, _pack(command))
            reply = self._receive(sock, deadline_ms)
        except (OSError, StoreConnectionError, StoreTimeoutError) as error:
            raise self._broken(error) from error
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def execute_many(self, deadline_ms: float, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once, then read all replies, before ``deadline_ms``; a reply for each, in order.

        An error reply stands in its place as a ``RedisError``. Raises as ``execute`` where the link fails; the
        outcome of every command is then unknown, unless it is a ``NotConnectedError`` or a ``NotSentError``.
        """
        if not commands:
            return []
        sock = self._ready_until(deadline_ms)
        try:
            self._send(sock, deadline_ms, b"".join(map(_pack, commands)))
            return [self._receive(sock, deadline_ms) for _ in commands]
        except (OSError, StoreConnectionError, StoreTimeoutError) as error:
            raise self._broken(error) from error

    # The two halves of an exchange, for whoever has several links at work

    def send(self, deadline_ms: float, commands: Sequence[Command]) -> None:
        """Send commands, to be followed by ``take_in`` until every reply is there; raises as ``execute``."""
        sock = self._ready_until(deadline_ms)
        try:
            self._send(sock, deadline_ms, b"".join(map(_pack, commands)))
        except (OSError, StoreConnectionError, StoreTimeoutError) as error:
            raise self._broken(error) from error

    def take_in(self) -> list[Any]:
        """Return the replies that have come since the last look, without waiting; raises where the link broke."""
        if self._socket is None:
            raise NotConnectedError("not connected to the store")
        try:
            self._feed_what_came(self._socket)
            return self._whole_replies()
        except (OSError, StoreConnectionError) as error:
            raise self._broken(error) from error

    def _feed_what_came(self, sock: socket.socket) -> None:
        with contextlib.suppress(*_NOT_YET):
            received = sock.recv(READ_BYTES)
            if not received:
                raise StoreConnectionError("closed by the store")
            self._reader.feed(received)

    def _whole_replies(self) -> list[Any]:
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        return replies

    def fileno(self) -> int:
        """The connection's descriptor, for a selector; -1 without one."""
        return self._socket.fileno() if self._socket is not None else -1

    def give_up(self) -> RedisError:
        """Close the link, whose replies came too late to be told apart from the next ones; what to say of them."""
        return self._broken(StoreTimeoutError("the deadline has passed"))

    def _ready_until(self, deadline_ms: float) -> socket.socket:
        if self._socket is None:
            raise NotConnectedError("not connected to the store")
        if self._clock.monotonic_ms() >= deadline_ms:
            raise NotSentError("the deadline had passed before the command was sent")
        return self._socket

    def _send(self, sock: socket.socket, deadline_ms: float, packed: bytes) -> None:
        """Send; nearly always there is room for all of it, and nothing to wait for."""
        left = memoryview(packed)
        while left:
            try:
                sent = sock.send(left)
                left = left[sent:]
            except ssl.SSLWantReadError:
                self._wait(deadline_ms)
            except _NOT_YET:
                self._wait_for_room(sock, deadline_ms)

    def _receive(self, sock: socket.socket, deadline_ms: float) -> Any:
        while (reply := self._reader.gets()) is False:
            self._wait(deadline_ms)
            self._feed_what_came(sock)
        return reply

    def _wait(self, deadline_ms: float) -> None:
        """Wait until something has come; raises ``StoreTimeoutError`` at the deadline."""
        left_ms = deadline_ms - self._clock.monotonic_ms()
        if left_ms <= 0 or not self._poll.poll(left_ms):
            raise StoreTimeoutError("the deadline has passed")

    def _wait_for_room(self, sock: socket.socket, deadline_ms: float) -> None:
        """Wait until more can be sent, in the same way."""
        self._poll.modify(sock, select.POLLOUT)
        try:
            self._wait(deadline_ms)
        finally:
            self._poll.modify(sock, select.POLLIN)

    def _broken(self, error: Exception) -> RedisError:
        """Close the link and say of what it broke."""
        self.close()
        if isinstance(error, TimeoutError | StoreTimeoutError):
            return StoreTimeoutError("the store did not answer in time")
        return StoreConnectionError(f"the link to the store broke: {error}")

    def mended(self) -> tuple[Self, None]:
        """Return itself: one connection is good or has to be made anew."""
        return self, None

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

    def any_closed_by_store(self) -> bool:
        """The same: there is one server."""
        return self.closed_by_store()

    def interrupt(self) -> None:
        """Wake whoever waits on this link, from another thread; its command fails as on a broken connection."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket = None
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
