"""What is said of a call as bytes of a RateLimitResponse. Sees protobuf, as the edges of this room.

Calls that meet the same limits are answered alike but for their numbers, so the message of such a shape is made once:
an admitted call's numbers are set in it and it is written out. For one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from protos.rate_limit_pb2 import RateLimitResponse
from ratelimit.descriptors.asking import UNCOUNTED
from ratelimit.descriptors.telling import Outcome, Said, Status
from ratelimit.windows.budgets import Window

UNLIMITED: Final = 2**32 - 1
"""What remains of no limit."""

_ADMITTED: Final = Outcome.OK
_UNITS: Final = {
    Window.SECOND: RateLimitResponse.RateLimit.SECOND,
    Window.MINUTE: RateLimitResponse.RateLimit.MINUTE,
    Window.HOUR: RateLimitResponse.RateLimit.HOUR,
    Window.DAY: RateLimitResponse.RateLimit.DAY,
    Window.WEEK: RateLimitResponse.RateLimit.WEEK,
}


class _Counted:
    """One status of a kept answer, with what its numbers are made of."""

    __slots__ = ("at", "duration", "per_window", "reset_ms", "status")

    def __init__(self, status: RateLimitResponse.DescriptorStatus, per_window: int, place: int) -> None:
        self.status = status
        self.duration: Duration = status.duration_until_reset
        self.per_window = per_window
        self.at = 2 * place
        self.reset_ms = -1  # as it stands in ``duration``: calls of one batch mostly have the same


class _Prepared:
    """The answer to admitted calls of one shape, with what changes from call to call at hand."""

    __slots__ = ("_counted", "_response")

    def __init__(self, said: Said) -> None:
        self._response = _response(said)
        shape = said.plan.shape
        self._counted = [
            _Counted(status, limit.per_window, place)
            for status, limit, place in zip(self._response.statuses, shape.limits, shape.places, strict=True)
            if limit is not None and place != UNCOUNTED
        ]

    def shown(self, numbers: tuple[int, ...], now_ms: int) -> bytes:
        """Put in the numbers of a call: what is counted of each budget, and when it is whole again."""
        for one in self._counted:
            at = one.at
            remaining = one.per_window - numbers[at]
            one.status.limit_remaining = remaining if remaining > 0 else 0  # noqa: FURB136  max() takes twice as long
            reset_ms = numbers[at + 1] - now_ms
            if reset_ms != one.reset_ms:
                one.reset_ms = reset_ms
                seconds, milliseconds = divmod(max(0, reset_ms), 1_000)
                one.duration.seconds, one.duration.nanos = seconds, milliseconds * 1_000_000
        return self._response.SerializeToString()


def shown(said: Said) -> bytes:
    """The answer to a call that was decided."""
    grant = said.grant
    if grant is None or said.outcome is not _ADMITTED:
        return _response(said).SerializeToString()
    shape = said.plan.shape
    prepared = shape.prepared
    if not isinstance(prepared, _Prepared):
        if shape.has_quota:
            return _response(said).SerializeToString()
        prepared = shape.prepared = _Prepared(said)
    return prepared.shown(grant.numbers, said.now_ms)


def _response(said: Said) -> RateLimitResponse:
    response = RateLimitResponse()
    is_over = said.outcome is Outcome.OVER_LIMIT
    response.overall_code = RateLimitResponse.OVER_LIMIT if is_over else RateLimitResponse.OK
    statuses = said.statuses
    for status in statuses:
        _fill(response.statuses.add(), status)
    if said.plan.told:
        _tell_quota(response, said, statuses)
    return response


def _tell_quota(response: RateLimitResponse, said: Said, statuses: Sequence[Status]) -> None:
    """Say which descriptors are above a limit in quota mode: envoyproxy/ratelimit's metadata."""
    entries = [{"entries": [f"{key}={value}" for key, value in one]} for one in said.plan.told]
    metadata: dict[str, Any] = {"domain": said.plan.planner.domain, "descriptors": entries, "quotaModeEnabled": True}
    above = [place for place, one in enumerate(statuses) if one.is_above and one.limit and one.limit.is_quota]
    if above:
        metadata["quotaModeViolations"] = above
    response.dynamic_metadata.update(metadata)


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
