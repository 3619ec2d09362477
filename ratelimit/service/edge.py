"""The ShouldRateLimit edge: bytes to values and back. Sees protobuf, as the other edges of this room.

It asks about ordinary descriptors; in one domain Envoys of the release before tell how calls ended (``stream_done``).
(envoy.service.ratelimit.v3.RateLimitService)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from protos.rate_limit_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse, RateLimitUnit
from ratelimit.descriptors.asking import Asked, Brought
from ratelimit.descriptors.telling import Outcome, Said
from ratelimit.service.remembered import Remembered
from ratelimit.service.shown import shown
from ratelimit.service.stream_done import StreamDone
from ratelimit.windows.budgets import Window
from runtime.grpc.front import INVALID_ARGUMENT, Answer, Failure

RATE_LIMIT_PATH: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
MAX_BATCH: Final = 256

_OK: Final = RateLimitResponse(overall_code=RateLimitResponse.OK).SerializeToString()
_OVER: Final = RateLimitResponse(overall_code=RateLimitResponse.OVER_LIMIT).SerializeToString()
_UNDECIDED: Final = Outcome.UNDECIDED  # at hand: looking a member up costs more than comparing it
_INVALID: Final = Outcome.INVALID
_NO_DOMAIN: Final = Failure(INVALID_ARGUMENT, "rate limit domain must not be empty")
_NO_DESCRIPTORS: Final = Failure(INVALID_ARGUMENT, "rate limit descriptor list must not be empty")
_WINDOWS: Final = {1: Window.SECOND, 2: Window.MINUTE, 3: Window.HOUR, 4: Window.DAY}
"""By the numbers of ``RateLimitUnit``."""

Decide = Callable[[Sequence[Asked], float], list[Said]]
"""Answers calls about ordinary descriptors, in order, before a deadline on the monotonic clock."""


class RateLimitService:
    """``RateLimitService/ShouldRateLimit`` in batches."""

    def __init__(
        self,
        stream_done: StreamDone,
        decide: Decide,
        on_unreadable: Callable[[], None],
        *,
        on_fault: Callable[[int], object],
        denies_undecided: Callable[[], bool],
    ) -> None:
        """``on_fault`` is told, within the handler, how many calls a fault of ours left undecided."""
        self._stream_done = stream_done
        self._decide = decide
        self._on_unreadable = on_unreadable
        self._on_fault = on_fault
        self._denies_undecided = denies_undecided
        self._remembered = Remembered[Asked]()
        self.max_batch = MAX_BATCH

    def answer(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        """Answer every question, in order; a fault of ours leaves this batch undecided and serves the next one."""
        try:
            return self._answers(payloads, deadline_ms)
        except Exception:  # noqa: BLE001  whatever it was: the gate's other calls must not end with these
            self._on_fault(len(payloads))
            return [self._undecided()] * len(payloads)

    def _answers(self, payloads: Sequence[bytes], deadline_ms: float) -> Sequence[Answer]:
        answers: list[Answer | None] = []
        asked: list[Asked] = []
        for payload in payloads:
            question = self._remembered.get(payload) or self._question(payload)
            if isinstance(question, Asked):
                asked.append(question)
                answers.append(None)
            else:
                answers.append(question)
        said = iter(self._decide(asked, deadline_ms) if asked else ())
        return [self._encoded(next(said)) if answer is None else answer for answer in answers]

    def _question(self, payload: bytes) -> Asked | Answer:
        """Read what was not kept; what needs no decision is answered, and never kept: it may tell something."""
        request = self._read(payload)
        answer = _answered_at_once(request)
        if request is None or answer is not None:
            return answer or _OK
        asked = _asked(request)
        self._remembered.offer(payload, asked)
        return asked

    def weights(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Their lengths."""
        return [*map(len, payloads)]

    def overloaded(self, payload: bytes) -> Answer:
        """Take note of an ended call all the same: it waits for nothing."""
        answer = _answered_at_once(self._read(payload))
        return self._undecided() if answer is None else answer

    def undelivered(self, answer: bytes) -> None:
        """Nothing hangs on who hears it: what was told stays told."""

    def _read(self, payload: bytes) -> RateLimitRequest | None:
        """Read a question; ``None`` where nothing is asked: it cannot be read, or says how a call ended."""
        try:
            request = RateLimitRequest.FromString(payload)
        except DecodeError:
            self._on_unreadable()
            return None
        return None if self._stream_done.is_told_by(request) else request

    def _undecided(self) -> bytes:
        return _OVER if self._denies_undecided() else _OK

    def _encoded(self, said: Said) -> Answer:
        outcome = said.outcome
        if outcome is _UNDECIDED:
            return self._undecided()
        if outcome is _INVALID:
            return Failure(INVALID_ARGUMENT, said.plan.fault)
        return shown(said)


def _answered_at_once(request: RateLimitRequest | None) -> Answer | None:
    """What needs no decision: nonsense is refused; ``None`` where limits are asked for."""
    if request is None:
        return _OK
    if not request.domain:
        return _NO_DOMAIN
    return None if request.descriptors else _NO_DESCRIPTORS


def _asked(request: RateLimitRequest) -> Asked:
    hits, descriptors = request.hits_addend or 1, request.descriptors
    asked = Asked(request.domain, tuple([(_entries(one), _hits(one, hits)) for one in descriptors]))
    if any(one.HasField("limit") for one in descriptors):
        asked.brought = tuple([_brought(one) for one in descriptors])
    return asked


def _entries(descriptor: RateLimitDescriptor) -> tuple[tuple[str, str], ...]:
    return tuple([(entry.key, entry.value) for entry in descriptor.entries])


def _hits(descriptor: RateLimitDescriptor, of_request: int) -> int:
    """A descriptor's own hits, 0 among them, or else the request's; below 0 where they are given back."""
    hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else of_request
    return -hits if descriptor.is_negative_hits else hits


def _brought(descriptor: RateLimitDescriptor) -> Brought | None:
    """The limit that a call brings along for a descriptor."""
    if not descriptor.HasField("limit"):
        return None
    unit = descriptor.limit.unit
    name = RateLimitUnit.Name(unit) if unit in RateLimitUnit.values() else str(unit)
    return Brought(_WINDOWS.get(unit), descriptor.limit.requests_per_unit, name)
