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
from extauth.entries import LEVEL_OF_PREFIX, WINDOW_NAMES, Level, level_of
from extauth.reasons import UNAUTHENTICATED, WIRE, Reason
from ratelimit.budgets import Answer, BudgetState, Grant, Window

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
    shown = [(state, _SHOWN[title]) for state in states if (title := _title(state)) in _SHOWN]
    if not shown:
        return []
    tightest, _ = min(shown, key=_tightness)
    limit, remaining = str(tightest.budget.limit), str(tightest.remaining)
    reset_s = _reset_s(tightest, now_ms)
    headers = [
        ("ratelimit-policy", ", ".join([f"{it.name};q={state.budget.limit};w={it.window_s}" for state, it in shown])),
        ("ratelimit", ", ".join([f"{it.name};r={state.remaining};t={_reset_s(state, now_ms)}" for state, it in shown])),
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


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a budget appears in headers."""

    name: str  # "publication-minute", quoted
    window_s: int


_SHOWN: Final = {
    (prefix, window): _Shown(f'"{level.value}-{name}"', window.value.window_ms // 1000)
    for prefix, level in LEVEL_OF_PREFIX.items()
    for window, name in WINDOW_NAMES.items()
    if level is not Level.TENANT
}


def _title(state: BudgetState) -> tuple[str, Window]:
    return state.subject.name[:2], state.budget.window


def _tightness(shown: tuple[BudgetState, _Shown]) -> tuple[int, int]:
    """Order budgets by what is left, the longer window first where that is equal."""
    return shown[0].remaining, -shown[1].window_s


def _reset_s(state: BudgetState, now_ms: int) -> int:
    """Seconds until the budget is whole again if nothing else is admitted."""
    return ceil_s(state.reset_at_ms - now_ms)
