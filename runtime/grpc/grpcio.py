"""The grpcio front: the same batches over grpcio's asyncio server, with TLS and client certificates where asked.

Two threads, whatever the number of calls: ``grpc-io`` runs the event loop that speaks HTTP/2, ``grpc-batches`` takes
what has arrived, hands it to the method's service and sends the answers. A call lives in ``_calls`` from its arrival to
its answer; one that its client gave up leaves it, and is then dropped unanswered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from runtime.clock import Clock
from runtime.grpc.front import (
    MAX_MESSAGE_BYTES,
    Answer,
    Answering,
    BatchService,
    Failure,
    Incoming,
    Place,
    QueueLimits,
    dialled,
)
from runtime.grpc.large import LargeCalls
from runtime.grpc.tls import Certificates, Identity
from runtime.lifecycle import fault_told

START_S: Final = 10.0
"""Longest wait for the event loop to bind, in seconds."""

MAX_AGE_MS: Final = 3_600_000
"""A TLS connection is renewed after an hour, so that a client whose certificate has ended is let in no longer."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
"""Without the first, two gates could bind one port and share its calls unseen."""

_TLS_OPTIONS: Final = (("grpc.max_connection_age_ms", MAX_AGE_MS), ("grpc.max_connection_age_grace_ms", 30_000))

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A call that waits for its answer."""

    path: str
    incoming: Incoming
    answer: asyncio.Future[Answer]


class GrpcioFront:
    """Serves unary methods on a Unix socket or a TCP address; with ``certificates``, over TLS only."""

    def __init__(
        self,
        services: Mapping[str, BatchService],
        *,
        target: str,
        clock: Clock,
        on_fault: Callable[[], object],
        limits: QueueLimits,
        certificates: Certificates | None = None,
    ) -> None:
        self._target = self._binding = target
        self._place = Place(target)
        self._services = services
        self._clock = clock
        self._on_fault = on_fault
        self._most_calls = 2 * limits.calls
        self._answering = Answering(clock, limits)
        self._large = LargeCalls(clock, limits)
        self._certificates = certificates
        self._ids = itertools.count()
        self._calls: dict[int, _Arrived] = {}
        self._arrived: queue.SimpleQueue[_Arrived | None] = queue.SimpleQueue()  # None: no more will come
        self._answers: deque[tuple[_Arrived, Answer]] = deque()
        self._bound: Future[int] = Future()
        self._grace_s = 0.0
        self._io = threading.Thread(target=self._run_io, name="grpc-io", daemon=True)
        self._decider = threading.Thread(target=self._run_decider, name="grpc-batches", daemon=True)

    def start(self) -> None:
        """Bind and begin to answer; raises ``CannotStart`` where the target cannot be bound."""
        with self._place.binding() as self._binding:
            self._io.start()
            self._bound.result(START_S)
        self._decider.start()

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        return dialled(self._target, port_of(self._bound))

    @property
    def in_flight(self) -> int:
        """Calls taken and not answered yet."""
        return len(self._calls)

    def stop(self, timeout_s: float) -> None:
        """Answer what has been taken, then close. Bounded by ``timeout_s``."""
        if self._decider.is_alive():
            self._grace_s = timeout_s
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._decider.join(timeout_s + 1)
        if self._io.is_alive():
            self._io.join(1)
        self._place.leave()

    # The event loop's thread

    def _run_io(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  whatever it was: who waits for the start, or the owner, must learn it
            if not self._bound.done():
                self._bound.set_exception(error)
                return
            _log.exception("the gRPC server ended by a fault of its own")
            self._on_fault()
        finally:
            self._arrived.put(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(without_noise)
        self._stopping = asyncio.Event()
        server = self._server()
        try:
            port = bind(server, self._binding, self._certificates)
            await server.start()
            self._bound.set_result(port)
            await self._stopping.wait()
        finally:
            await server.stop(self._grace_s)

    def _server(self) -> grpc.aio.Server:
        options = (*_OPTIONS, *(_TLS_OPTIONS if self._certificates else ()))
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=self._most_calls)
        methods: dict[str, dict[str, Any]] = defaultdict(dict)
        for path in self._services:
            _, service, method = path.split("/")
            methods[service][method] = grpc.unary_unary_rpc_method_handler(self._handler(path))
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(*one) for one in methods.items()])
        return server

    def _handler(self, path: str) -> Callable[[bytes, Any], Awaitable[Answer]]:
        async def handle(payload: bytes, context: Any) -> Answer:
            left_s = context.time_remaining()
            deadline_ms = float("inf") if left_s is None else self._clock.monotonic_ms() + left_s * 1000
            call = _Arrived(path, Incoming(next(self._ids), payload, deadline_ms), self._loop.create_future())
            self._calls[call.incoming.call_id] = call
            self._arrived.put(call)
            try:
                answer = await call.answer
            except asyncio.CancelledError:
                if not call.answer.cancelled():  # given up at the very moment of its answer
                    self._undelivered(call, call.answer.result())
                raise
            finally:  # answered, or given up by its client
                del self._calls[call.incoming.call_id]
            if isinstance(answer, Failure):
                await context.abort(_CODES[answer.code], answer.message)
            return answer

        return handle

    def _undelivered(self, call: _Arrived, answer: Answer) -> None:
        if isinstance(answer, bytes):
            self._services[call.path].undelivered(answer)

    def _send(self) -> None:
        while self._answers:
            call, answer = self._answers.popleft()
            if call.answer.done():
                self._undelivered(call, answer)
            else:
                call.answer.set_result(answer)

    # The deciding thread

    def _run_decider(self) -> None:
        with fault_told(_log, "the batch loop", self._on_fault):
            while (arrived := self._take()) is not None:
                self._answer(arrived)

    def _take(self) -> list[_Arrived] | None:
        """Take what has arrived, after a wait for it unless large calls wait; ``None``: no more will come."""
        if self._large:
            return list(self._others())
        first = self._arrived.get()
        return None if first is None else [first, *self._others()]

    def _others(self) -> Iterable[_Arrived]:
        """Take what else has arrived, without waiting; the word that no more will come stays."""
        for _ in range(self._arrived.qsize()):
            call = self._arrived.get()
            if call is None:
                self._arrived.put(None)
                return
            yield call

    def _answer(self, arrived: Iterable[_Arrived]) -> None:
        taken_ms = self._clock.monotonic_ms()
        by_path: dict[str, list[Incoming]] = defaultdict(list)
        for call in arrived:
            if call.incoming.call_id in self._calls:
                by_path[call.path].append(call.incoming)
        self._large.drop(lambda call_id: call_id not in self._calls)
        for path, calls in by_path.items():
            service = self._services[path]
            small = self._large.keep(service, calls, self._respond)
            if small:
                self._answering.answer_all(service, small, taken_ms, self._respond)
        self._large.answer_next(self._respond)

    def _respond(self, call_id: int, answer: Answer) -> bool:
        """Have the loop send an answer; one wake-up sends all that are ready by then."""
        call = self._calls.get(call_id)
        if call is None:
            return False
        self._answers.append((call, answer))
        if len(self._answers) == 1:
            self._loop.call_soon_threadsafe(self._send)
        return True


def port_of(bound: Future[int]) -> int | None:
    """The port that a server was bound to; ``None`` while it is not, or could not be."""
    return bound.result() if bound.done() and bound.exception() is None else None


def bind(server: grpc.aio.Server, target: str, certificates: Certificates | None) -> int:
    """Bind a server, with ``certificates`` over TLS only; returns the port. Raises where the target cannot be bound."""
    if certificates is None:
        return int(server.add_insecure_port(target))
    return int(server.add_secure_port(target, _server_credentials(certificates)))


def _server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS 1.2 or newer (grpc's own minimum); the files are looked at again for each new connection."""

    def changed() -> grpc.ServerCertificateConfiguration | None:
        identity = certificates.changed()
        return None if identity is None else _configuration(identity)

    first = certificates.identity
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first), changed, require_client_authentication=first.client_ca is not None
    )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], identity.client_ca)


def without_noise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report faults as asyncio does, but not that another loop of this process has read grpc's wake-up first."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
