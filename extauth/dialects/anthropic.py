"""The gateway's words in Anthropic's API: errors, limits and moments. Pure.

An error says of itself what OpenAI's shape says too, in ``details``: Anthropic's own clients show ``error_code`` of it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any, Final

REQUEST_ID: Final = "request-id"
"""The header by which its clients know a call."""

OVERLOADED: Final = "overloaded"
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_FIRST_OF_OURS: Final = 500


def error_type(status: int, code: str) -> str:
    """The type of an error by its status; ``code``: OpenAI's."""
    if code == OVERLOADED:
        return "overloaded_error"
    return _TYPES.get(status) or ("invalid_request_error" if status < _FIRST_OF_OURS else "api_error")


def error_body(status: int, error: Mapping[str, Any], request_id: str | None) -> dict[str, Any]:
    """An error of OpenAI's shape, ``error``, in Anthropic's; it has a ``message`` and a ``code``."""
    said = {name: value for name, value in error.items() if name not in _MOVED and value is not None}
    return {
        "type": "error",
        "error": {
            "type": error_type(status, error["code"]),
            "message": error["message"],
            "details": {"error_code": error["code"], **said},
        },
        "request_id": request_id or None,
    }


_MOVED: Final = frozenset({"message", "type", "code"})


def limit_names(what: str) -> tuple[str, str, str]:
    """How the tightest budget of ``requests`` or ``tokens`` is told: limit, what is left, when it is whole again."""
    about = f"anthropic-ratelimit-{what}"
    return f"{about}-limit", f"{about}-remaining", f"{about}-reset"


def whole_at(reset_at_ms: int, now_ms: int) -> str:
    """When a budget is whole again (RFC 3339, rounded up to a second): now, where it is."""
    return moment(-(-max(reset_at_ms, now_ms) // 1000))


@functools.lru_cache(maxsize=1_024)
def moment(at_s: int) -> str:
    """A moment by RFC 3339: 0 -> ``1970-01-01T00:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
