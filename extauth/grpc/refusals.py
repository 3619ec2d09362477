"""A refusal as gRPC's callers understand it: a status, a message, and what explains it. Pure.

Envoy makes trailers of it without a body. ``grpc-status-details-bin`` has Google's ErrorInfo (reason, domain and what
else the error says) and, where waiting helps, RetryInfo; ``x-tollkeeper-reason`` says the reason in plain text.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from extauth.answers.answers import GIVE_UP_AFTER_MS, NOT_AGAIN, OVERLOAD_RETRY_S, Denial
from extauth.answers.wire import field, number_field
from extauth.reasons import Reason

REASON_HEADER: Final = "x-tollkeeper-reason"
STATUS_HEADER: Final = "grpc-status"
DOMAIN: Final = "tollkeeper"

INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

STATUS_OF: Final[Mapping[int, int]] = {
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: NOT_FOUND,
    405: UNIMPLEMENTED,
    415: UNIMPLEMENTED,
    429: RESOURCE_EXHAUSTED,
    503: UNAVAILABLE,
}
"""gRPC's status by the HTTP status of every reason. Envoy's own table would make UNIMPLEMENTED of 404, and of 429
UNAVAILABLE, which clients try again at once."""

_TYPES: Final = "type.googleapis.com/google.rpc."
_NEVER: Final = "-1"
_OF_BODIES: Final = ("content-type", "accept-encoding", "allow", "www-authenticate")
"""Headers that say something of HTTP alone."""


def as_grpc(refusal: Denial) -> Denial:
    """The same refusal for a call of gRPC. The body is what becomes of its message.

    That nothing is published there has no details: where there is no route the proxy says it, and knows none.
    """
    error: dict[str, Any] = json.loads(refusal.body)["error"]
    status, message = STATUS_OF[refusal.status], str(error["message"])
    wait_ms = error.get("retry_after_ms") or (1000 * OVERLOAD_RETRY_S if status == UNAVAILABLE else 0)
    details = field(3, _error_info(error)) + (field(3, _retry_info(wait_ms)) if wait_ms else b"")
    told = number_field(1, status) + field(2, message.encode()) + details
    headers = [(name, value) for name, value in refusal.headers if name not in _OF_BODIES]
    headers += [(STATUS_HEADER, str(status)), (REASON_HEADER, str(error["reason"]))]
    if error["reason"] == Reason.NO_PUBLICATION:
        return Denial(refusal.status, headers, message)
    headers += [
        ("grpc-status-details-bin", binascii.b2a_base64(told, newline=False).decode().rstrip("=")),
        *_pushback(status, 0 if NOT_AGAIN in headers else wait_ms),
    ]
    return Denial(refusal.status, headers, message)


def _pushback(status: int, wait_ms: int) -> Iterator[tuple[str, str]]:
    """What a client goes by that tries again by itself (gRFC A6): after so long, or not at all."""
    if status in {RESOURCE_EXHAUSTED, UNAVAILABLE}:
        worth_it = 0 < wait_ms <= GIVE_UP_AFTER_MS
        yield "grpc-retry-pushback-ms", str(wait_ms) if worth_it else _NEVER


def _error_info(error: Mapping[str, Any]) -> bytes:
    """google.rpc.ErrorInfo: reason, domain, metadata."""
    more = {name: str(value) for name, value in error.items() if name != "message" and value is not None}
    said = field(1, str(error["reason"]).upper().encode()) + field(2, DOMAIN.encode())
    said += b"".join(field(3, field(1, name.encode()) + field(2, value.encode())) for name, value in more.items())
    return _any("ErrorInfo", said)


def _retry_info(wait_ms: int) -> bytes:
    """google.rpc.RetryInfo: retry_delay, a Duration."""
    seconds, left_ms = divmod(wait_ms, 1000)
    delay = number_field(1, seconds) + number_field(2, left_ms * 1_000_000)
    return _any("RetryInfo", field(1, delay))


def _any(name: str, content: bytes) -> bytes:
    return field(1, f"{_TYPES}{name}".encode()) + field(2, content)
