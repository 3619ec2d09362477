"""The native front: batches of calls from pygrpc-native, which does the HTTP/2 work outside Python. It has no TLS.

One thread, ``grpc-batches``, takes whatever has arrived, hands it to the method's service and sends the answers; of
large calls one a turn. Of a call's metadata only its timeout is brought to Python: all of them would cost as much as
the whole rest of an empty call. What is left of a timeout is counted from the moment since when the call must have
arrived: what lay there already came after the take before; what came while we slept has just come.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from runtime.clock import Clock
from runtime.grpc.front import Answer, Answering, BatchService, Failure, Incoming, Place, QueueLimits, dialled
from runtime.grpc.large import LargeCalls
from runtime.grpc.timeouts import TIMEOUT_HEADER, Timeouts
from runtime.lifecycle import fault_told

if TYPE_CHECKING:  # the stub has this type, the module does not
    from pygrpc_native._native import Event

POLL_MS: Final = 100
"""How long the loop sleeps in the front before it looks whether it should stop."""

_new: Final = tuple.__new__  # of a named tuple, in half the time: its own constructor is a function in Python

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
        self._large = LargeCalls(clock, limits)
        self._services = list(services.values())
        self._target = target
        self._place = Place(target)
        self._methods = [(path, False) for path in services]
        self._front: NativeGrpcFront | None = None
        self._timeouts = Timeouts()
        self._all_taken_ms = clock.monotonic_ms()  # when there was last nothing left to take
        self._stopping = threading.Event()
        self._batches: threading.Thread | None = None
        self._on_fault = on_fault
        self.in_flight = 0
        """Calls taken and not answered yet."""

    def start(self) -> None:
        """Bind and begin to answer; raises ``CannotStart`` where the target cannot be bound."""
        self._front = self._bound()
        self._batches = threading.Thread(target=self._run, args=(self._front,), name="grpc-batches", daemon=True)
        self._batches.start()

    def _bound(self) -> NativeGrpcFront:
        with self._place.binding() as target:
            front = NativeGrpcFront(
                target,
                self._methods,
                io_threads=1,
                client_key_metadata=TIMEOUT_HEADER,
                call_details=True,  # they are not asked for, but without it a cancel is not told
            )
            front.start()
        return front

    @property
    def address(self) -> str:
        """What clients dial: the Unix target as given, or host:port with the port that was bound."""
        return dialled(self._target, self._front.bound_port if self._front else None)

    def stop(self, timeout_s: float) -> None:
        """Answer what has been taken, then close. Bounded by ``timeout_s``."""
        self._stopping.set()
        if self._batches is not None:
            self._batches.join(timeout_s)
        if self._front is not None:
            self._front.close()
        self._place.leave()

    def _run(self, front: NativeGrpcFront) -> None:
        with fault_told(_log, "the batch loop", self._on_fault):
            while not self._stopping.is_set():
                self._serve_once(front, POLL_MS)
            while self._serve_once(front, 0):
                pass

    def _serve_once(self, front: NativeGrpcFront, wait_ms: int) -> bool:
        """Take what has arrived and answer it; returns whether there was anything."""
        events, since_ms, taken_ms = self._taken(front, 0 if self._large else wait_ms)
        if not events and not self._large:
            return False

        send = front.respond

        def respond(call_id: int, answer: Answer) -> bool:
            """False after a cancel, the client's deadline, or its connection's end."""
            if isinstance(answer, Failure):
                return front.fail(call_id, answer.code, answer.message)
            return send(call_id, answer)

        by_method = self._by_method(events, since_ms)
        self.in_flight = len(self._large) + sum(map(len, by_method.values()))
        for method, calls in by_method.items():
            service = self._services[method]
            small = self._large.keep(service, calls, respond)
            if small:
                self._answering.answer_all(service, small, taken_ms, respond)
        self._large.answer_next(respond)
        self.in_flight = len(self._large)
        return True

    def _taken(self, front: NativeGrpcFront, wait_ms: int) -> tuple[list[Event], float, float]:
        """Take what has arrived, or the first that comes; the moment since when all of it must have; and now."""
        since_ms = self._all_taken_ms
        events = front.recv_batch(self._taken_at_once, 0)
        slept = not events and wait_ms > 0
        if slept:
            events = front.recv_batch(self._taken_at_once, wait_ms)
        now_ms = self._clock.monotonic_ms()
        if not events or len(events) < self._taken_at_once:
            self._all_taken_ms = now_ms
        return events or [], now_ms if slept else since_ms, now_ms

    def _by_method(self, events: list[Event], since_ms: float) -> dict[int, list[Incoming]]:
        """The calls of each method, less those that were given up as soon as they came."""
        by_method: dict[int, list[Incoming]] = {}
        cancelled = set()
        last, deadline_ms = None, float("inf")
        for kind, call_id, method, payload, timeout in events:
            if kind != EVENT_CALL or payload is None:
                cancelled.add(call_id)
                continue
            if timeout != last:  # a proxy says the same of all its calls
                last, deadline_ms = timeout, since_ms + self._timeouts.ms(timeout)
            call = _new(Incoming, (call_id, payload, deadline_ms))
            if method in by_method:
                by_method[method].append(call)
            else:
                by_method[method] = [call]
        if not cancelled:
            return by_method
        self._large.drop(cancelled.__contains__)
        left = {
            method: [call for call in calls if call.call_id not in cancelled] for method, calls in by_method.items()
        }
        return {method: calls for method, calls in left.items() if calls}
