"""What a caller is told: status, headers and body of a verdict. Pure; free of protobuf.

Headers: ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10), ``X-RateLimit-*`` (the
tightest budget, seconds from now), OpenAI's ``x-ratelimit-*-requests`` on openai publications, ``retry-after-ms``.
What a tenant's budgets are is its own business: they appear in no header, and its refusal tells only level and wait.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from catalog.records import ModelType
from extauth.entries import WINDOW_NAMES, Level, level_of
from extauth.reasons import UNAUTHENTICATED, WIRE, Reason
from ratelimit.budgets import Answer, BudgetState, Grant

Headers = list[tuple[str, str]]

GIVE_UP_AFTER_MS: Final = 60_000
"""Waiting longer than this is not worth a client's while: it is told not to retry by itself."""
OVERLOAD_RETRY_S: Final = 1
"""What a caller should wait after a 503; the gateway heals within seconds."""
_JSON_HEADERS: Final[Headers] = [("content-type", "application/json")]


@dataclass(frozen=True, slots=True)
class Denial:
    """A refused call's answer."""

    status: int
    headers: Headers
    body: str


def ceil_s(duration_ms: int) -> int:
    """Round milliseconds up to whole seconds, 0 for the past: 1 ms -> 1."""
    return max(0, -(-duration_ms // 1000))


def denial(
    reason: Reason,
    *,
    grant: Grant | None = None,
    now_ms: int = 0,
    masked: str = "",
    model_type: ModelType | None = None,
) -> Denial:
    """Answer a call that may not pass. ``now_ms`` is the store's clock at the decision."""
    wire = WIRE[reason]
    headers = list(_JSON_HEADERS)
    error: dict[str, object] = {
        "message": wire.message,
        "type": wire.type,
        "code": wire.code,
        "param": wire.param,
        "reason": reason.value if wire is not UNAUTHENTICATED else "unauthenticated",
    }
    if wire is UNAUTHENTICATED:
        headers.append(("www-authenticate", 'ApiKey realm="tollkeeper", header="X-API-Key", Bearer realm="tollkeeper"'))
        error["key"] = masked or None
    if wire.status == 503:  # noqa: PLR2004  an HTTP status
        headers.append(("retry-after", str(OVERLOAD_RETRY_S)))
    if grant is not None and grant.refused_by is not None:
        _explain(error, headers, grant, grant.refused_by, now_ms)
        headers += limit_headers(grant.states, now_ms, model_type)
    return Denial(wire.status, headers, json.dumps({"error": error}, separators=(",", ":")))


def _explain(error: dict[str, object], headers: Headers, grant: Grant, state: BudgetState, now_ms: int) -> None:
    """Say which budget refused, how much of it is left and when the call would fit."""
    level = level_of(state)
    window = WINDOW_NAMES.get(state.budget.window, state.budget.window.value.name)
    error["level"] = level.value
    if level is not Level.TENANT:
        error |= {"budget": f"{level.value}-{window}", "limit": state.budget.limit, "remaining": state.remaining}
    if grant.answer is Answer.NEVER_FITS:
        headers.append(("x-should-retry", "false"))
        return
    wait_ms = max(1, grant.retry_at_ms - now_ms)
    error["retry_after_ms"] = wait_ms
    error["message"] = f"The {level.value}'s {window} budget is used up; retry in {wait_ms} ms."
    headers += [("retry-after-ms", str(wait_ms)), ("retry-after", str(ceil_s(wait_ms)))]
    if wait_ms > GIVE_UP_AFTER_MS:
        headers.append(("x-should-retry", "false"))


def limit_headers(states: Sequence[BudgetState], now_ms: int, model_type: ModelType | None) -> Headers:
    """Describe the budgets of a call, without the tenant's."""
    shown = [state for state in states if level_of(state) is not Level.TENANT]
    if not shown:
        return []
    tightest = min(shown, key=lambda state: (state.remaining, -state.budget.window.value.window_ms))
    limit, remaining = str(tightest.budget.limit), str(tightest.remaining)
    reset_s = ceil_s(tightest.reset_at_ms - now_ms)
    headers = [
        ("ratelimit-policy", ", ".join(_policy(state) for state in shown)),
        ("ratelimit", ", ".join(_service_limit(state, now_ms) for state in shown)),
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", remaining),
        ("x-ratelimit-reset", str(reset_s)),
    ]
    if model_type is ModelType.OPENAI:
        headers += _openai_headers(limit, remaining, reset_s)
    return headers


def _openai_headers(limit: str, remaining: str, reset_s: int) -> Headers:
    """Give OpenAI's names; the reset is a duration such as ``61s``."""
    return [
        ("x-ratelimit-limit-requests", limit),
        ("x-ratelimit-remaining-requests", remaining),
        ("x-ratelimit-reset-requests", f"{reset_s}s"),
    ]


def _name(state: BudgetState) -> str:
    return f'"{level_of(state).value}-{WINDOW_NAMES[state.budget.window]}"'


def _policy(state: BudgetState) -> str:
    """``"publication-minute";q=100;w=60``: quota and window in seconds."""
    return f"{_name(state)};q={state.budget.limit};w={state.budget.window.value.window_ms // 1000}"


def _service_limit(state: BudgetState, now_ms: int) -> str:
    """``"publication-minute";r=40;t=61``: units left, seconds until the budget is whole again."""
    return f"{_name(state)};r={state.remaining};t={ceil_s(state.reset_at_ms - now_ms)}"
