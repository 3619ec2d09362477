"""Endings as an Envoy of the release before says them: a ShouldRateLimit call in a domain of ours, answered OK at once.

To be deleted with ``ratelimit.tokens.stream_done`` in the release after this one. Sees protobuf, as an edge.
"""

from __future__ import annotations

from collections.abc import Callable

from protos.rate_limit_pb2 import RateLimitRequest
from ratelimit.tokens.endings import Told
from ratelimit.tokens.stream_done import DOMAIN, read_told


class StreamDone:
    """Takes note of what such calls say."""

    def __init__(self, note: Callable[[Told], None], on_unreadable: Callable[[], object]) -> None:
        self._note = note
        self._on_unreadable = on_unreadable

    def is_told_by(self, request: RateLimitRequest) -> bool:
        """Take note if the call says how others ended; whether it does."""
        if request.domain != DOMAIN:
            return False
        for descriptor in request.descriptors:
            told = read_told({entry.key: entry.value for entry in descriptor.entries})
            if told is None:
                self._on_unreadable()
            else:
                self._note(told)
        return True
