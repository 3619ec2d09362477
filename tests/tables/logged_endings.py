"""The specification of what Envoy 1.40.0 says of the ten endings in its access log, and what is read of it.

The fields are those seen of a real Envoy (tests/e2e/test_endings.py asks for each again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ratelimit.tokens.costs import Ended

NAMES: Final = ("reservation", "publication")


@dataclass(frozen=True, slots=True)
class Row:
    """One call's entry, and what is read of it."""

    says: str
    ended: Ended
    status: int | None = 200  # None: the caller got none
    body_bytes: int = 75
    flags: tuple[str, ...] = ()  # of ResponseFlags, by their upstream names
    last_byte_ms: int | None = 11  # None: the last byte was not sent
    details: str = "via_upstream"
    usage: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = ""  # "": Envoy was not asked to tell it


USAGE: Final = {"total": 12.0, "prompt": 5.0, "completion": 7.0}
TOLD: Final = {"total": 12, "prompt": 5, "completion": 7}
DC: Final = ("downstream_connection_termination",)


def _ended(*of: Any, aborted: bool = False, **told: Any) -> Ended:
    return Ended(*of, aborted=aborted, duration_ms=12, **told)


ROWS: Final = (
    Row("whole JSON with usage", _ended(200, 75, **TOLD), usage=USAGE),
    Row("whole events with usage", _ended(200, 75, **TOLD, events=4), usage=USAGE | {"events": 4.0}),
    Row("whole, without usage", _ended(200, 75)),
    Row("JSON is no stream", _ended(200, 75, events=0), content_type="Application/json; charset=utf-8"),
    Row("events that nobody counted", _ended(200, 75), content_type="text/event-stream"),
    Row(
        "the server breaks off before usage",
        _ended(200, 75, aborted=True),
        flags=("upstream_protocol_error",),
        last_byte_ms=None,
    ),
    Row(
        "the server breaks off after usage",
        _ended(200, 75, aborted=True, **TOLD),
        flags=("upstream_protocol_error",),
        last_byte_ms=None,
        usage=USAGE,
    ),
    Row(
        "the caller leaves before the headers",
        _ended(0, 0, aborted=True),
        status=None,
        body_bytes=0,
        flags=DC,
        last_byte_ms=None,
        details="downstream_remote_disconnect",
    ),
    Row("the caller leaves in the middle", _ended(200, 75, aborted=True), flags=DC, last_byte_ms=None),
    Row("the caller leaves at [DONE]", _ended(200, 75, aborted=True, **TOLD), flags=DC, last_byte_ms=None, usage=USAGE),
    Row("the server fails", _ended(500, 20), status=500, body_bytes=20),
    Row(
        "the server hangs up before an answer",
        _ended(503, 90, aborted=True),
        status=503,
        body_bytes=90,
        flags=("upstream_connection_termination",),
        details="upstream_reset_before_response_started{connection_termination}",
    ),
    Row("a timeout before the headers", _ended(504, 90), status=504, body_bytes=90, details="max_duration_timeout"),
    Row("cut off for its length", _ended(200, 75, aborted=True), last_byte_ms=None, details="max_duration_timeout"),
    Row(
        "too large an answer for Envoy",
        _ended(500, 160, withheld=True),
        status=500,
        body_bytes=160,
        details="response_payload_too_large",
    ),
    Row("a delay that Envoy was told to make", _ended(200, 75), flags=("delay_injected",)),
    Row("a delay, and the caller left", _ended(200, 75, aborted=True), flags=("delay_injected", *DC)),
    Row("a flag that we do not know", _ended(200, 75, aborted=True), flags=("dns_resolution_failure",)),
    Row("no answer's status is that", _ended(0, 75), status=600),
    Row(
        "parts of usage",
        _ended(200, 75, cached=3, cache_written=2, reasoning=4),
        usage={"cached": 3, "cache_written": 2, "reasoning": 4},
    ),
    Row(
        "tokens apart belong to the prompt",
        _ended(200, 75, prompt=9, completion=7),
        usage={"prompt": 5, "completion": 7, "apart": 4},
    ),
    Row("tokens apart alone", _ended(200, 75, prompt=4), usage={"apart": 4}),
    Row("a fraction is rounded down", _ended(200, 75, total=12), usage={"total": 12.7}),
    Row("a negative count is none", _ended(200, 75), usage={"total": -5}),
    Row("not a number is none", _ended(200, 75), usage={"total": float("nan")}),
    Row("more than any call is the most", _ended(200, 75, total=10**9), usage={"total": 1e300}),
    Row("infinite is the most", _ended(200, 75, total=10**9), usage={"total": float("inf")}),
    Row("text that is a number", _ended(200, 75, total=12), usage={"total": "12"}),
    Row("text that is none", _ended(200, 75), usage={"total": "many"}),
    Row("neither text nor a number", _ended(200, 75), usage={"total": True, "prompt": None}),
)
