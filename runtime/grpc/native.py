"""The native front: batches of calls from pygrpc-native, which does the HTTP/2 work outside Python. It has no TLS.

One thread, ``grpc-batches``, takes whatever has arrived, hands it to the method's service and sends the answers.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from runtime.clock import Clock
from runtime.grpc.front import Answer, Answering, BatchService, Failure, Incoming, Place, QueueLimits, dialled

if TYPE_CHECKING:  # the stub has this type, the module does not
    from pygrpc_native._native import DetailedEvent

POLL_MS: Final = 100
"""How long the loop sleeps in the front before it looks whether it should stop."""

_log = logging.getLogger(__name__)


class NativeFront:
    """Serves unary methods on a Unix socket or a TCP address, without TLS."""

    def __init__(
        self,
        services: Mapping[str, BatchService],
        *,
        target: str,
        clock: Clock,
        on_fault: Callable[[], object],
        limits: QueueLimits,
    ) -> None:
        self._clock = clock
        self._taken_at_once = 2 * limits.calls
        self._answering = Answering(clock, limits)
        self._services = list(services.values())
        self._target = target
        self._place = Place(target)
        self._methods = [(path, False) for path in services]
        self._front: NativeGrpcFront | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_fault = on_fault
        self.in_flight = 0
        """Calls taken and not answered yet."""

    def start(self) -> None:
        """Bind and begin to answer; raises ``CannotStart`` where the target cannot be bound."""
        self._front = self._bound()
        self._thread = threading.Thread(target=self._run, args=(self._front,), name="grpc-batches", daemon=True)
        self._thread.start()

    def _bound(self) -> NativeGrpcFront:
        with self._place.binding() as target:
            front = NativeGrpcFront(target, self._methods, io_threads=1, call_details=True)
            front.start()
        return front

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        return dialled(self._target, self._front.bound_port if self._front else None)

    def stop(self, timeout_s: float) -> None:
        """Answer what has been taken, then close. Bounded by ``timeout_s``."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._front is not None:
            self._front.close()
        self._place.leave()

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
        events = front.recv_batch_details(self._taken_at_once, wait_ms)
        if not events:
            return False
        taken_ms = self._clock.monotonic_ms()
        taken = self._by_service(events, taken_ms)
        self.in_flight = sum(len(calls) for _, calls in taken)
        for service, calls in taken:
            self._answering.answer_all(service, calls, taken_ms, partial(self._respond, front))
        self.in_flight = 0  # less those that their clients gave up
        return True

    def _respond(self, front: NativeGrpcFront, call_id: int, answer: Answer) -> bool:
        """False after a cancel, the client's deadline, or its connection's end."""
        self.in_flight -= 1
        if isinstance(answer, Failure):
            return front.fail(call_id, answer.code, answer.message)
        return front.respond(call_id, answer)

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
