"""Takes streams of messages over gRPC, from clients that wait for no answer while a stream lasts.

Owns the thread ``grpc-streams``, which runs the event loop that speaks HTTP/2; each message is handed over on it, as
bytes, in the order of its stream. A stream is ended by us once it is old, so that its client begins another one,
maybe with another of us. What a client sends before it hears of an end is lost, so a stream ends when a message was
taken and no other follows: a client that sends at intervals sends nothing then. (docs/decisions/0027)
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from runtime.grpc.front import Place, dialled
from runtime.grpc.grpcio import MAX_AGE_MS, START_S, bind, port_of, without_noise
from runtime.grpc.health import HEALTH_PATH, HealthService
from runtime.grpc.tls import Certificates

QUIET_S: Final = 0.005
"""A stream ends when no further message comes for so long: what its client sent together has arrived by then."""
STOP_S: Final = 0.25
"""How long a stop waits for what clients send at intervals, each of which ends its stream."""
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # else two of us could bind one port and share its streams unseen
    ("grpc.max_concurrent_streams", 128),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),  # of one without a stream
    ("grpc.keepalive_time_ms", 20_000),  # a client that has gone without a word is found out
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # clients may look whether we are there
    ("grpc.http2.max_ping_strikes", 0),
)
_TLS_OPTIONS: Final = (("grpc.max_connection_age_ms", MAX_AGE_MS), ("grpc.max_connection_age_grace_ms", 120_000))

_log = logging.getLogger(__name__)


class StreamEnd(enum.StrEnum):
    """How a stream ended; also a metric's label."""

    RENEWED = "renewed"  # by us, for its age or because we stop
    CLOSED = "closed"  # by its client, who has sent all
    BROKEN = "broken"  # its connection was lost, its client reset it or sent a message above the bound
    REFUSED = "refused"  # there were too many


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """What clients may take."""

    message_bytes: int = 1024 * 1024
    streams: int = 512  # at once; one more is refused
    least_age_s: float = 10  # each stream's age is drawn anew between both, so that they do not end together
    most_age_s: float = 20


Take = Callable[[bytes], None]
"""Takes one message; called on the receiver's thread, which waits for it."""
OnEnd = Callable[[StreamEnd], object]


class StreamReceiver:
    """Serves client-streaming methods, and health, on a Unix socket or a TCP address; with ``certificates``, by TLS."""

    def __init__(
        self,
        methods: Mapping[str, Take],
        health: HealthService,
        *,
        target: str,
        on_end: OnEnd,
        on_fault: Callable[[], object],
        limits: ReceiverLimits,
        certificates: Certificates | None = None,
    ) -> None:
        """``methods``: path -> who takes its messages. ``on_fault``: nothing is received any more."""
        self._methods = methods
        self._health = health
        self._target = self._binding = target
        self._place = Place(target)
        self._on_end = on_end
        self._on_fault = on_fault
        self._limits = limits
        self._certificates = certificates
        self._streams = 0
        self._draining = False
        self._bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="grpc-streams", daemon=True)

    def start(self) -> None:
        """Bind and begin to receive; raises ``CannotStart`` where the target cannot be bound."""
        with self._place.binding() as self._binding:
            self._thread.start()
            self._bound.result(START_S)

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        return dialled(self._target, port_of(self._bound))

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._streams

    def drain(self) -> None:
        """End each stream after its next message, so that its client goes elsewhere."""
        self._draining = True

    def stop(self) -> None:
        """Take what has arrived and what comes within a moment, then close. Bounded."""
        self.drain()
        if self._thread.is_alive() and port_of(self._bound) is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_S + START_S)
        self._place.leave()

    # The event loop's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  whatever it was: who waits for the start, or the owner, must learn it
            if not self._bound.done():
                self._bound.set_exception(error)
                return
            _log.exception("the receiver of streams ended by a fault of its own")
            self._on_fault()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(without_noise)
        self._stopping = asyncio.Event()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        server = self._server()
        try:
            port = bind(server, self._binding, self._certificates)
            await server.start()
            self._bound.set_result(port)
            await self._stopping.wait()
        finally:
            await self._close(server)

    async def _close(self, server: grpc.aio.Server) -> None:
        """Begin no more streams, end each with its next message, and those that stay silent a moment later."""
        closing = asyncio.create_task(server.stop(2 * STOP_S), name="receiver-stop")
        await asyncio.wait({closing}, timeout=STOP_S)
        self._closed.set_result(None)
        await closing

    def _server(self) -> grpc.aio.Server:
        bound = ("grpc.max_receive_message_length", self._limits.message_bytes)
        server = grpc.aio.server(options=(*_OPTIONS, bound, *(_TLS_OPTIONS if self._certificates else ())))
        for path, take in self._methods.items():
            server.add_generic_rpc_handlers([_handlers(path, grpc.stream_unary_rpc_method_handler(self._taking(take)))])
        server.add_generic_rpc_handlers([_handlers(HEALTH_PATH, grpc.unary_unary_rpc_method_handler(self._say_health))])
        return server

    async def _say_health(self, payload: bytes, _context: Any) -> bytes:
        return self._health.answer([payload], float("inf"))[0]

    def _taking(self, take: Take) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(_messages: Any, context: Any) -> bytes:
            if self._streams >= self._limits.streams:
                self._on_end(StreamEnd.REFUSED)
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
            self._streams += 1
            end = StreamEnd.BROKEN
            try:
                await context.send_initial_metadata(())  # so that its client knows that it need not go elsewhere
                end = await self._receive(take, context)
            finally:
                self._streams -= 1
                self._on_end(end)
            return b""

        return handle

    async def _receive(self, take: Take, context: Any) -> StreamEnd:
        """Hand over every message until the stream ends, or has grown old and is quiet."""
        old_from_s = self._loop.time() + random.uniform(self._limits.least_age_s, self._limits.most_age_s)  # noqa: S311  # nosec B311  no secret
        is_old = False
        while True:
            reading = asyncio.ensure_future(context.read())
            reading.add_done_callback(partial(self._read, take))
            done, _ = await asyncio.wait(
                {reading, self._closed}, timeout=QUIET_S if is_old else None, return_when=asyncio.FIRST_COMPLETED
            )
            if reading not in done:
                return StreamEnd.RENEWED
            if reading.result() is grpc.aio.EOF:
                await asyncio.sleep(QUIET_S)  # that a stream was given up is heard after that no more will come
                return StreamEnd.BROKEN if context.cancelled() else StreamEnd.CLOSED
            is_old = self._draining or self._loop.time() >= old_from_s

    @staticmethod
    def _read(take: Take, reading: asyncio.Future[Any]) -> None:
        """Hand over what was read, even if the stream was ended meanwhile, by either side."""
        if reading.cancelled() or reading.exception() is not None or reading.result() is grpc.aio.EOF:
            return
        try:
            take(reading.result())
        except Exception:  # noqa: BLE001  whatever it was: the stream's other messages must not end with this one
            _log.exception("a message could not be taken")


def _handlers(path: str, handler: Any) -> Any:
    _, service, method = path.split("/")
    return grpc.method_handlers_generic_handler(service, {method: handler})
