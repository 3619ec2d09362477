"""The seam between gRPC and what it carries: services that answer calls in batches, fronts that bring them the calls.

Owns what both fronts share: the services' shape, the bounds of the queue, and how what was taken is answered in chunks.
Knows methods as bytes, nothing of what they mean. The fronts are ``native`` (Unix socket or TCP, no TLS) and
``grpcio`` (TLS and client certificates too). A call that its client gave up is dropped unanswered; a call that
would wait too long behind others is answered by ``overloaded`` without being looked at. A large call is answered by
itself (``large``), and of those that are not small only so many at once, so that small ones wait for little of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from runtime.clock import Clock
from runtime.lifecycle import CannotStart
from runtime.private_socket import PrivateSocket

_UNIX: Final = "unix:"


class Incoming(NamedTuple):
    """One call as taken from a front."""

    call_id: int
    payload: bytes
    deadline_ms: float  # the client's own, on the monotonic clock; infinite when it set none


class Failure(NamedTuple):
    """Instead of a message: the call ends with a gRPC error."""

    code: int  # of grpc.StatusCode; 3: INVALID_ARGUMENT
    message: str  # for the caller


INVALID_ARGUMENT: Final = 3
MAX_MESSAGE_BYTES: Final = 65 * 1024 * 1024
"""Largest message that a front takes: a call with a body of 64 MiB, the most that may be set. The native front has no
bound of its own."""

Answer = bytes | Failure
"""What one call is answered: a message, or why there is none."""


class BatchService(Protocol):
    """A unary method that answers calls in batches."""

    @property
    def max_batch(self) -> int:
        """Most calls to hand over at once, as of now."""
        ...

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """What calls weigh, in bytes of a message that takes as long to answer: mostly their length."""
        ...

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        """Answer every call, in order, before the deadline (monotonic clock). Must not raise."""
        ...

    def overloaded(self, payload: bytes) -> Answer:
        """Answer a call that cannot be looked at in time."""
        ...

    def undelivered(self, answer: bytes) -> None:
        """Hear of a message that surely reached nobody: its client gave up before. From any thread; must not raise.

        An answer that this was not said of may have been lost all the same, on its way.
        """
        ...


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long calls may wait and how long an answer may take."""

    calls: int = 2_000  # most calls taken at once; those beyond are answered as overloaded
    wait_ms: float = 20  # longest wait behind other batches since a call was taken
    answer_ms: float = 50  # longest time from taking a call to the end of any wait on the store
    least_ms: float = 10  # a call whose client waits no longer than this is not begun: it would hurry its whole batch
    small_bytes: int = 8 * 1024  # a call that weighs up to this waits behind no larger one
    large_bytes: int = 256 * 1024  # so much of larger calls is answered at once; one above this alone (``large``)
    large_bytes_waiting: int = 64 * 1024 * 1024  # of large calls together; those beyond are answered as overloaded
    large_answer_ms: float = 1_000  # longest time for the answer of a large call, reading it included


class GrpcFront(Protocol):
    """Serves unary methods on one address; one thread of its own decides."""

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls taken and not answered yet."""
        ...

    def start(self) -> None:
        """Bind and begin to answer; raises ``CannotStart`` where the target cannot be bound."""
        ...

    def stop(self, timeout_s: float) -> None:
        """Answer what has been taken, then close. Bounded by ``timeout_s``."""
        ...


FrontFactory = Callable[[Mapping[str, BatchService]], GrpcFront]
"""Makes a front for these services (method path -> service), not started yet: a front's class with all else given."""

Respond = Callable[[int, Answer], bool]
"""Sends the answer of the call with this id; False where its client is known to wait no longer."""


class Answering:
    """Answers what a front has taken at one moment, in chunks, within the bounds."""

    def __init__(self, clock: Clock, limits: QueueLimits) -> None:
        self._clock = clock
        self._limits = limits

    def answer_all(self, service: BatchService, calls: Sequence[Incoming], taken_ms: float, respond: Respond) -> None:
        """Answer every call; the first chunk always, later ones only while they need not wait too long."""
        begin = 0
        limit = min(len(calls), self._limits.calls)
        while begin == 0 or (begin < limit and self._clock.monotonic_ms() - taken_ms <= self._limits.wait_ms):
            most = service.max_batch
            chunk = calls[begin : begin + most]
            self._answer_chunk(service, chunk, taken_ms, respond)
            begin += len(chunk)
        for call in calls[begin:]:
            respond(call.call_id, service.overloaded(call.payload))

    def _answer_chunk(
        self, service: BatchService, chunk: Sequence[Incoming], taken_ms: float, respond: Respond
    ) -> None:
        """Answer the calls whose clients still wait; nothing may be taken for one after it gave up."""
        now_ms = self._clock.monotonic_ms()
        too_soon_ms, deadline_ms = now_ms + self._limits.least_ms, taken_ms + self._limits.answer_ms
        ids, payloads = [], []
        for call_id, payload, call_deadline_ms in chunk:
            if call_deadline_ms > too_soon_ms:
                ids.append(call_id)
                payloads.append(payload)
                if call_deadline_ms < deadline_ms:  # noqa: PLR1730  min() takes three times as long, of every call
                    deadline_ms = call_deadline_ms
            elif call_deadline_ms > now_ms:
                respond(call_id, service.overloaded(payload))
        if not ids:
            return
        for call_id, answer in zip(ids, service.answer(payloads, deadline_ms), strict=True):
            if not respond(call_id, answer) and isinstance(answer, bytes):
                service.undelivered(answer)


class Place:
    """Where a front listens; a Unix socket is private from its bind on."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._path = Path(target.removeprefix(_UNIX)) if target.startswith(_UNIX) else None
        self._socket = PrivateSocket(self._path) if self._path else None

    @contextmanager
    def binding(self) -> Iterator[str]:
        """Give the target to bind and listen at; raises ``CannotStart`` where it cannot be, or somebody listens."""
        if self._path is not None and _answers(self._path):
            raise CannotStart(f"{self._target}: another process listens there")
        try:
            with self._socket.binding() if self._socket else nullcontext() as path:
                yield self._target if path is None else f"{_UNIX}{path}"
        except (OSError, RuntimeError) as error:
            raise CannotStart(f"{self._target}: cannot be bound: {error}") from error

    def leave(self) -> None:
        """Take a Unix socket away; idempotent."""
        if self._socket is not None:
            self._socket.remove()


def dialled(target: str, port: int | None) -> str:
    """Return what clients dial where ``target`` was asked for and ``port`` was bound; ``None``: not bound yet."""
    if target.startswith(_UNIX) or port is None:
        return target
    return f"{target.rpartition(':')[0]}:{port}"


def _answers(path: Path) -> bool:
    """Whether a process listens on this Unix socket; binding would take the path away from it unseen."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
