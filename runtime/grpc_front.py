"""The gRPC front: batches of calls in, batches of answers out. Knows methods as bytes, nothing of what they mean.

One thread takes whatever has arrived, hands it to the method's service in chunks and sends the answers.
The HTTP/2 work runs outside Python (pygrpc-native). A call that its client gave up is dropped unanswered;
a call that would wait too long behind others is answered by ``overloaded`` without being looked at.
"""

from __future__ import annotations

import logging
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from runtime.clock import Clock
from runtime.lifecycle import CannotStart

if TYPE_CHECKING:  # the stub has this type, the module does not
    from pygrpc_native._native import DetailedEvent

POLL_MS: Final = 100
"""How long the loop sleeps in the front before it looks whether it should stop."""

_log = logging.getLogger(__name__)


class Incoming(NamedTuple):
    """One call as taken from the front."""

    call_id: int
    payload: bytes
    deadline_ms: float  # the client's own, on the monotonic clock; infinite when it set none


class BatchService(Protocol):
    """A unary method that answers calls in batches."""

    @property
    def max_batch(self) -> int:
        """Most calls to hand over at once, as of now."""
        ...

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[bytes]:
        """Answer every call, in order, before the deadline (monotonic clock). Must not raise."""
        ...

    def overloaded(self, payload: bytes) -> bytes:
        """Answer a call that cannot be looked at in time."""
        ...


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long calls may wait and how long an answer may take."""

    calls: int = 2_000  # most calls taken at once; those beyond are answered as overloaded
    wait_ms: float = 20  # longest wait behind other batches since a call was taken
    answer_ms: float = 50  # longest time from taking a call to the end of any wait on the store
    least_ms: float = 10  # a call whose client waits no longer than this is not begun: it would hurry its whole batch


class NativeFront:
    """Serves unary methods on a Unix socket or a TCP address, without TLS."""

    def __init__(
        self,
        target: str,
        services: Mapping[str, BatchService],
        clock: Clock,
        *,
        on_fault: Callable[[], object],
        limits: QueueLimits,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._services = list(services.values())
        self._target = target
        self._methods = [(path, False) for path in services]
        self._front: NativeGrpcFront | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_fault = on_fault
        self.in_flight = 0
        """Calls taken and not answered yet, as of the last batch."""

    def start(self) -> None:
        """Bind and begin to answer; raises ``CannotStart`` where the target cannot be bound."""
        self._front = self._bound()
        self._thread = threading.Thread(target=self._run, args=(self._front,), name="grpc-batches", daemon=True)
        self._thread.start()

    def _bound(self) -> NativeGrpcFront:
        path = Path(self._target.removeprefix("unix:")) if self._target.startswith("unix:") else None
        if path is not None and _answers(path):
            raise CannotStart(f"{self._target}: another process listens there")
        try:
            front = NativeGrpcFront(self._target, self._methods, io_threads=1, call_details=True)
            front.start()
            if path is not None:
                path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        except (OSError, RuntimeError) as error:
            raise CannotStart(f"{self._target}: cannot be bound: {error}") from error
        return front

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        if self._target.startswith("unix:") or self._front is None:
            return self._target
        return f"{self._target.rpartition(':')[0]}:{self._front.bound_port}"

    def stop(self, timeout_s: float) -> None:
        """Answer what has been taken, then close. Bounded by ``timeout_s``."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._front is not None:
            self._front.close()

    def _run(self, front: NativeGrpcFront) -> None:
        try:
            while not self._stopping.is_set():
                self._serve_once(front, POLL_MS)
            while self._serve_once(front, 0):
                pass
        except Exception:  # noqa: BLE001  whatever it was: the owner must learn that nobody answers any more
            _log.exception("the batch loop ended by a fault of its own")
            self._on_fault()

    def _serve_once(self, front: NativeGrpcFront, wait_ms: int) -> bool:
        """Take what has arrived and answer it; returns whether there was anything."""
        events = front.recv_batch_details(2 * self._limits.calls, wait_ms)
        if not events:
            return False
        taken_ms = self._clock.monotonic_ms()
        taken = self._by_service(events, taken_ms)
        self.in_flight = sum(len(calls) for _, calls in taken)
        for service, calls in taken:
            self._answer_all(front, service, calls, taken_ms)
        self.in_flight = 0
        return True

    def _by_service(
        self, events: Sequence[DetailedEvent], taken_ms: float
    ) -> list[tuple[BatchService, list[Incoming]]]:
        cancelled = {event[1] for event in events if event[0] != EVENT_CALL}
        by_method: dict[int, list[Incoming]] = defaultdict(list)
        for kind, call_id, method_id, payload, _, details in events:
            if kind == EVENT_CALL and call_id not in cancelled and payload is not None:
                left_s = details[2] if details else None
                deadline_ms = float("inf") if left_s is None else taken_ms + left_s * 1000
                by_method[method_id].append(Incoming(call_id, payload, deadline_ms))
        return [(self._services[method_id], calls) for method_id, calls in by_method.items()]

    def _answer_all(
        self, front: NativeGrpcFront, service: BatchService, calls: list[Incoming], taken_ms: float
    ) -> None:
        begin = 0
        limit = min(len(calls), self._limits.calls)
        while begin == 0 or (begin < limit and self._clock.monotonic_ms() - taken_ms <= self._limits.wait_ms):
            chunk = calls[begin : begin + service.max_batch]
            self._answer_chunk(front, service, chunk, taken_ms)
            begin += len(chunk)
            self.in_flight -= len(chunk)
        for call in calls[begin:]:
            front.respond(call.call_id, service.overloaded(call.payload))

    def _answer_chunk(
        self, front: NativeGrpcFront, service: BatchService, chunk: list[Incoming], taken_ms: float
    ) -> None:
        """Answer the calls whose clients still wait; nothing may be taken for one after it gave up."""
        now_ms = self._clock.monotonic_ms()
        waiting = [call for call in chunk if call.deadline_ms > now_ms + self._limits.least_ms]
        for call in chunk:
            if now_ms < call.deadline_ms <= now_ms + self._limits.least_ms:
                front.respond(call.call_id, service.overloaded(call.payload))
        if not waiting:
            return
        deadline_ms = min(taken_ms + self._limits.answer_ms, *(call.deadline_ms for call in waiting))
        answers = service.answer([call.payload for call in waiting], deadline_ms)
        for call, answer in zip(waiting, answers, strict=True):
            front.respond(call.call_id, answer)


def _answers(path: Path) -> bool:
    """Whether a process listens on this Unix socket; binding would take the path away from it unseen."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
