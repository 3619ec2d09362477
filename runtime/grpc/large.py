"""Large calls: they wait here for their turn, so that a front answers all small ones that have come in between.

A turn answers one, or as many smaller ones together as are no larger than it, in the order of their arrival. So does a
batch take no more of the calls that are not small: many of 200 KiB would keep small ones waiting like one vast one.
A call is as large as it weighs for its service.
What waits is bounded in bytes; a call beyond that is answered by ``overloaded`` at once. A call whose client gave up,
or whose time is over, leaves unanswered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from runtime.clock import Clock
from runtime.grpc.front import BatchService, Incoming, QueueLimits, Respond


class LargeCalls:
    """The large calls of one front, of all its services; used by the thread that answers."""

    def __init__(self, clock: Clock, limits: QueueLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._waiting: deque[tuple[BatchService, int, Incoming]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    def keep(self, service: BatchService, calls: Sequence[Incoming], respond: Respond) -> Sequence[Incoming]:
        """Keep what is too large for one batch, as far as there is room to wait; returns the others."""
        small_bytes, room = self._limits.small_bytes, self._limits.large_bytes
        weights = service.weights([payload for _, payload, _ in calls])
        if max(weights) <= small_bytes:
            return calls
        others = []
        for call, weight in zip(calls, weights, strict=True):
            if weight <= small_bytes:
                others.append(call)
            elif weight <= room:
                room -= weight
                others.append(call)
            else:
                self._wait(service, weight, call, respond)
        return others

    def _wait(self, service: BatchService, weight: int, call: Incoming, respond: Respond) -> None:
        if self._bytes + len(call.payload) > self._limits.large_bytes_waiting:
            respond(call.call_id, service.overloaded(call.payload))
            return
        self._waiting.append((service, weight, call))
        self._bytes += len(call.payload)

    def drop(self, is_given_up: Callable[[int], bool]) -> None:
        """Let go of the calls, by their ids, whose clients wait no longer."""
        if self._waiting:
            self._waiting = deque(one for one in self._waiting if not is_given_up(one[2].call_id))
            self._bytes = sum(len(call.payload) for _, _, call in self._waiting)

    def answer_next(self, respond: Respond) -> None:
        """Answer the calls that have waited longest, of those whose clients still wait."""
        now_ms = self._clock.monotonic_ms()
        while self._waiting:
            service, calls = self._turn()
            in_time = [call for call in calls if call.deadline_ms > now_ms + self._limits.least_ms]
            for call in calls:
                if now_ms < call.deadline_ms <= now_ms + self._limits.least_ms:
                    respond(call.call_id, service.overloaded(call.payload))
            if in_time:
                self._answer(service, in_time, now_ms, respond)
                return

    def _turn(self) -> tuple[BatchService, list[Incoming]]:
        """Take the first call, and those behind it that fit one turn with it."""
        service, room = self._waiting[0][0], self._limits.large_bytes
        calls: list[Incoming] = []
        while self._waiting and self._waiting[0][0] is service and len(calls) < service.max_batch:
            _, weight, call = self._waiting[0]
            if calls and weight > room:
                break
            self._waiting.popleft()
            calls.append(call)
            self._bytes -= len(call.payload)
            room -= weight
        return service, calls

    def _answer(self, service: BatchService, calls: Sequence[Incoming], now_ms: float, respond: Respond) -> None:
        deadline_ms = min(now_ms + self._limits.large_answer_ms, *(call.deadline_ms for call in calls))
        answers = service.answer([call.payload for call in calls], deadline_ms)
        for call, answer in zip(calls, answers, strict=True):
            if not respond(call.call_id, answer) and isinstance(answer, bytes):
                service.undelivered(answer)
