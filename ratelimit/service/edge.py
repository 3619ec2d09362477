"""The ShouldRateLimit edge: bytes to values and back; beside the Check edge the only one that sees Envoy's protobuf.

The domain ``tollkeeper`` tells how calls ended: it is answered OK at once and settled behind it. Every other domain
asks about ordinary descriptors. (envoy.service.ratelimit.v3.RateLimitService)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from protos.rate_limit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from ratelimit.descriptors.deciding import Asked, Outcome, Said, Status
from ratelimit.tokens.endings import DOMAIN, Told, read_told
from ratelimit.windows.budgets import Window
from runtime.grpc.front import INVALID_ARGUMENT, Answer, Failure

RATE_LIMIT_PATH: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
MAX_BATCH: Final = 256
UNLIMITED: Final = 2**32 - 1
"""What remains of no limit."""

_OK: Final = RateLimitResponse(overall_code=RateLimitResponse.OK).SerializeToString()
_OVER: Final = RateLimitResponse(overall_code=RateLimitResponse.OVER_LIMIT).SerializeToString()
_NO_DOMAIN: Final = Failure(INVALID_ARGUMENT, "rate limit domain must not be empty")
_NO_DESCRIPTORS: Final = Failure(INVALID_ARGUMENT, "rate limit descriptor list must not be empty")
_UNITS: Final = {
    Window.SECOND: RateLimitResponse.RateLimit.SECOND,
    Window.MINUTE: RateLimitResponse.RateLimit.MINUTE,
    Window.HOUR: RateLimitResponse.RateLimit.HOUR,
    Window.DAY: RateLimitResponse.RateLimit.DAY,
}

Decide = Callable[[Sequence[Asked], float], list[Said]]
"""Answers calls about ordinary descriptors, in order, before a deadline on the monotonic clock."""


class RateLimitService:
    """``RateLimitService/ShouldRateLimit`` in batches."""

    def __init__(
        self,
        note: Callable[[Told], None],
        decide: Decide,
        on_unreadable: Callable[[], None],
        *,
        on_fault: Callable[[int], object],
        denies_undecided: Callable[[], bool],
    ) -> None:
        """``on_fault`` is told, within the handler, how many calls a fault of ours left undecided."""
        self._note = note
        self._decide = decide
        self._on_unreadable = on_unreadable
        self._on_fault = on_fault
        self._denies_undecided = denies_undecided
        self.max_batch = MAX_BATCH

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        """Answer every question, in order; a fault of ours leaves this batch undecided and serves the next one."""
        try:
            return self._answers(payloads, deadline_ms)
        except Exception:  # noqa: BLE001  whatever it was: the gate's other calls must not end with these
            self._on_fault(len(payloads))
            return [self._undecided()] * len(payloads)

    def _answers(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        requests = [self._read(payload) for payload in payloads]
        at_once = [_answered_at_once(request) for request in requests]
        pairs = zip(requests, at_once, strict=True)
        asked = [_asked(request) for request, answer in pairs if request is not None and answer is None]
        said = iter(self._decide(asked, deadline_ms) if asked else ())
        return [self._encoded(next(said)) if answer is None else answer for answer in at_once]

    def overloaded(self, payload: bytes) -> Answer:
        """Take note of an ended call all the same: it waits for nothing."""
        answer = _answered_at_once(self._read(payload))
        return self._undecided() if answer is None else answer

    def undelivered(self, answer: bytes) -> None:
        """Nothing hangs on who hears it: what was told stays told."""

    def _read(self, payload: bytes) -> RateLimitRequest | None:
        """Read a question, and take note of what it tells."""
        try:
            request = RateLimitRequest.FromString(payload)
        except DecodeError:
            self._on_unreadable()
            return None
        if request.domain == DOMAIN:
            self._settle(request)
        return request

    def _settle(self, request: RateLimitRequest) -> None:
        for descriptor in request.descriptors:
            told = read_told({entry.key: entry.value for entry in descriptor.entries})
            if told is None:
                self._on_unreadable()
            else:
                self._note(told)

    def _undecided(self) -> bytes:
        return _OVER if self._denies_undecided() else _OK

    def _encoded(self, said: Said) -> bytes:
        if said.outcome is Outcome.UNDECIDED:
            return self._undecided()
        response = RateLimitResponse()
        is_over = said.outcome is Outcome.OVER_LIMIT
        response.overall_code = RateLimitResponse.OVER_LIMIT if is_over else RateLimitResponse.OK
        for status in said.statuses:
            _fill(response.statuses.add(), status)
        return response.SerializeToString()


def _answered_at_once(request: RateLimitRequest | None) -> Answer | None:
    """What needs no decision: ended calls are noted, nonsense is refused; ``None`` where limits are asked for."""
    if request is None or request.domain == DOMAIN:
        return _OK
    if not request.domain:
        return _NO_DOMAIN
    return None if request.descriptors else _NO_DESCRIPTORS


def _asked(request: RateLimitRequest) -> Asked:
    hits = request.hits_addend or 1
    return Asked(request.domain, tuple((_entries(one), _hits(one, hits)) for one in request.descriptors))


def _entries(descriptor: RateLimitDescriptor) -> tuple[tuple[str, str], ...]:
    return tuple((entry.key, entry.value) for entry in descriptor.entries)


def _hits(descriptor: RateLimitDescriptor, of_request: int) -> int:
    """A descriptor's own hits, 0 among them, or else the request's."""
    return descriptor.hits_addend.value if descriptor.HasField("hits_addend") else of_request


def _fill(told: RateLimitResponse.DescriptorStatus, status: Status) -> None:
    told.code = RateLimitResponse.OVER_LIMIT if status.is_over else RateLimitResponse.OK
    limit = status.limit
    if limit is None:
        return
    if limit.window is None:
        told.limit_remaining = UNLIMITED
        return
    told.current_limit.requests_per_unit = limit.per_window
    told.current_limit.unit = _UNITS[limit.window]
    told.current_limit.name = limit.name
    told.limit_remaining = status.remaining
    told.duration_until_reset.FromMilliseconds(status.reset_ms)
