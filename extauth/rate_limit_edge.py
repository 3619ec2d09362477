"""The ShouldRateLimit edge: bytes to values and back; beside the Check edge the only one that sees Envoy's protobuf.

The domain ``tollkeeper`` tells how calls ended: it is answered OK at once and settled behind it.
(envoy.service.ratelimit.v3.RateLimitService)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from extauth.endings import DOMAIN, Told, read_told
from protos.rate_limit_pb2 import RateLimitRequest, RateLimitResponse

RATE_LIMIT_PATH: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
MAX_BATCH: Final = 256

_OK: Final = RateLimitResponse(overall_code=RateLimitResponse.OK).SerializeToString()


class RateLimitService:
    """``RateLimitService/ShouldRateLimit`` in batches."""

    def __init__(self, note: Callable[[Told], None], on_unreadable: Callable[[], None]) -> None:
        self._note = note
        self._on_unreadable = on_unreadable
        self.max_batch = MAX_BATCH

    def answer(self, payloads: Sequence[bytes], _deadline_ms: float) -> Sequence[bytes]:
        """Answer every question, in order."""
        return [self._answer(payload) for payload in payloads]

    def overloaded(self, payload: bytes) -> bytes:
        """Take note all the same: it waits for nothing."""
        return self._answer(payload)

    def undelivered(self, answer: bytes) -> None:
        """Nothing hangs on who hears it: what was told stays told."""

    def _answer(self, payload: bytes) -> bytes:
        try:
            request = RateLimitRequest.FromString(payload)
        except DecodeError:
            self._on_unreadable()
            return _OK
        if request.domain == DOMAIN:
            self._settle(request)
        return _OK

    def _settle(self, request: RateLimitRequest) -> None:
        for descriptor in request.descriptors:
            told = read_told({entry.key: entry.value for entry in descriptor.entries})
            if told is None:
                self._on_unreadable()
            else:
                self._note(told)
