"""What a caller is told: status, headers and body of a verdict. Pure; free of protobuf.

Headers: ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10), ``X-RateLimit-*`` (the
tightest budget of calls, seconds from now), on openai publications OpenAI's ``x-ratelimit-*-requests`` and
``x-ratelimit-*-tokens``, or Anthropic's in their place where its API is spoken; ``retry-after-ms``; ``x-should-retry``,
where a client should not or surely should.
What a tenant's budgets are is its own business: they appear in no header, and its refusal tells only level and wait.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from catalog.records import ModelType
from extauth.dialects.anthropic import REQUEST_ID, error_body, limit_names, whole_at
from extauth.reasons import UNAUTHENTICATED, WIRE, Reason
from extauth.records.entries import WINDOW_NAMES
from extauth.request.body import BodyFault
from extauth.request.permitted import CALLED_BY
from ratelimit.tokens.terms import Terms, Work
from ratelimit.windows.budgets import Answer, BudgetState, Grant, Hold, Window
from ratelimit.windows.levels import LEVEL_OF_PREFIX, Level, level_of

Headers = list[tuple[str, str]]

GIVE_UP_AFTER_MS: Final = 60_000
"""Waiting longer than this is not worth a client's while: it is told not to retry by itself."""
OVERLOAD_RETRY_S: Final = 1
"""What a caller should wait after a 503; the gateway heals within seconds."""
_RETRIES: Final = "x-should-retry"
NOT_AGAIN: Final = (_RETRIES, "false")
"""The header of a refusal that the same call would only meet again."""
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
    hold: Hold | None = None,
    model_type: ModelType | None = None,
    fault: BodyFault | None = None,
    request_id: str | None = None,
) -> Denial:
    """Answer a call that may not pass. ``now_ms`` is the store's clock at the decision, ``hold`` what it would hold.

    ``fault``: what is wrong with its body, in words that name the field and the rule.
    ``request_id``: of a call that speaks Anthropic's API, in which a refusal names it; ``None``: it speaks OpenAI's.
    """
    is_anthropic = request_id is not None
    wire = WIRE[reason]
    headers = list(_JSON_HEADERS)
    error: dict[str, object] = {
        "message": wire.message,
        "type": wire.type,
        "code": wire.code,
        "param": wire.param,
        "reason": reason.value if wire is not UNAUTHENTICATED else "unauthenticated",
    }
    if fault is not None:
        error |= {"message": fault.message, "code": fault.code or wire.code, "param": fault.param}
        if fault.accepts:  # RFC 9110, 15.5.16
            headers += [("accept-encoding", fault.accepts), NOT_AGAIN]
    if wire is UNAUTHENTICATED:
        headers.append(("www-authenticate", 'ApiKey realm="tollkeeper", header="X-API-Key", Bearer realm="tollkeeper"'))
        error["key"] = masked or None
    if reason is Reason.METHOD_NOT_ALLOWED:
        headers.append(("allow", CALLED_BY))
    if wire.status == 503:  # noqa: PLR2004  an HTTP status
        headers.append(("retry-after", str(OVERLOAD_RETRY_S)))
    if grant is not None and grant.place:
        states = grant.states
        refused_by = states[grant.place - 1]
        _explain(error, headers, grant, refused_by, now_ms)
        if reason is Reason.TOO_MANY_ERRORS:
            _explain_errors(error, headers, refused_by)
        if refused_by.budget.shape.counts_tokens:
            _explain_tokens(error, refused_by, hold, grant.held)
        headers += limit_headers(states, now_ms, model_type, is_anthropic=is_anthropic)
    body = error_body(wire.status, error, request_id) if is_anthropic else {"error": error}
    if request_id:
        headers.append((REQUEST_ID, request_id))
    return Denial(wire.status, headers, json.dumps(body, separators=(",", ":")))


def _explain(error: dict[str, object], headers: Headers, grant: Grant, state: BudgetState, now_ms: int) -> None:
    """Say which budget refused, how much of it is left and when the call would fit."""
    level = level_of(state)
    window = WINDOW_NAMES.get(state.budget.window, state.budget.window.value.name)
    error["level"] = level.value
    if level is not Level.TENANT:
        error |= {"budget": f"{level.value}-{window}", "limit": state.budget.limit, "remaining": state.remaining}
    if grant.answer is Answer.NEVER_FITS:
        headers.append(NOT_AGAIN)
        return
    wait_ms = max(1, grant.retry_at_ms - now_ms)
    error["retry_after_ms"] = wait_ms
    error["message"] = f"The {level.value}'s {window} budget is used up; retry in {wait_ms} ms."
    headers += [("retry-after-ms", str(wait_ms)), ("retry-after", str(ceil_s(wait_ms)))]
    if wait_ms > GIVE_UP_AFTER_MS:
        headers.append(NOT_AGAIN)
    elif grant.held:
        headers.append((_RETRIES, "true"))


def _explain_errors(error: dict[str, object], headers: Headers, state: BudgetState) -> None:
    """Say that it is not the key's budgets of calls that are used up, and that the same call had better not come."""
    calls, wait_ms = state.budget.limit, error["retry_after_ms"]
    error["message"] = (
        f"This call is refused for a fault of its own, as {calls} calls of this key were in a minute; what is wrong is "
        f"told again in {wait_ms} ms. Calls without a fault go on: see the errors before, and mend the call."
    )
    headers[:] = [header for header in headers if header[0] != _RETRIES] + [NOT_AGAIN]


def _explain_tokens(error: dict[str, object], state: BudgetState, hold: Hold | None, held: int) -> None:
    """Say how many tokens the call may cost; what a tenant has left is its own business."""
    terms = Terms.unpack(hold.terms) if hold else None
    error["tokens"] = terms.reserved if terms else 0
    level, asked, advice = level_of(state), *_asked_for(terms)
    when = f"retry in {error['retry_after_ms']} ms" if "retry_after_ms" in error else "it never fits"
    left = "" if level is Level.TENANT else f": {state.remaining} of {state.budget.limit} an hour are left"
    if held:
        left += "; tokens" if level is Level.TENANT else f" and {held}"
        left += " are held by calls in flight, which give back what they do not use"
    error["message"] = f"{asked} and the {level.value}'s token budget has no room for it{left}; {when}{advice}."


def _asked_for(terms: Terms | None) -> tuple[str, str]:
    """What a call holds and why, and how its caller may have it hold less."""
    if terms is None:
        return _COSTS_NOTHING
    tokens = f"{terms.reserved} token" if terms.reserved == 1 else f"{terms.reserved} tokens"
    match terms.asked.work:
        case Work.FETCHES:
            return _COSTS_NOTHING
        case Work.FORM:
            return f"This call holds {tokens} (what a form costs is known only when it has ended)", ""
        case Work.READS:
            return f"This call may cost {tokens} (what it gives the model to read)", "; send less at once"
        case Work.GENERATES | Work.DRAWS:
            fields = "'max_tokens' or 'n'" if terms.asked.choices > 1 else "'max_tokens'"
            asked = f"This call may cost {tokens} (its prompt and the completion it asks for)"
            return asked, f"; ask for fewer by {fields}"


_COSTS_NOTHING: Final = ("This call may cost 0 tokens", "")


def limit_headers(
    states: Sequence[BudgetState], now_ms: int, model_type: ModelType | None, *, is_anthropic: bool = False
) -> Headers:
    """Describe the budgets of a call, without the tenant's. ``is_anthropic``: to who speaks Anthropic's API."""
    shown = [(state, SHOWN[title]) for state in states if (title := _title(state)) in SHOWN]
    if model_type is not ModelType.OPENAI:  # elsewhere nobody counts tokens
        shown = [row for row in shown if not row[0].budget.shape.counts_tokens]
    if not shown:
        return []
    headers = [
        ("ratelimit-policy", ", ".join([f"{it.name};q={state.budget.limit};w={it.window_s}" for state, it in shown])),
        ("ratelimit", ", ".join([f"{it.name};r={state.remaining};t={_reset_s(state, now_ms)}" for state, it in shown])),
    ]
    calls = [row for row in shown if _counts_calls(row[0])]
    named = _anthropic_headers if is_anthropic else _openai_headers
    if calls:
        tightest = min(calls, key=_tightness)[0]
        headers += _call_headers(tightest, now_ms)
        headers += named("requests", tightest, now_ms) if model_type is ModelType.OPENAI else []
    tokens = [row for row in shown if row[0].budget.shape.counts_tokens]
    if tokens:
        headers += named("tokens", min(tokens, key=_tightness)[0], now_ms)
    return headers


def _counts_calls(state: BudgetState) -> bool:
    """Whether it is a budget of a model's calls, by whose headers clients pace these."""
    return not state.budget.shape.counts_tokens and level_of(state) not in {Level.MODEL_LIST, Level.ERRORS}


def _call_headers(tightest: BudgetState, now_ms: int) -> Headers:
    return [
        ("x-ratelimit-limit", str(tightest.budget.limit)),
        ("x-ratelimit-remaining", str(tightest.remaining)),
        ("x-ratelimit-reset", str(_reset_s(tightest, now_ms))),
    ]


def _openai_headers(what: str, tightest: BudgetState, now_ms: int) -> Headers:
    """Give OpenAI's names; the reset is a duration such as ``61s``."""
    return [
        (f"x-ratelimit-limit-{what}", str(tightest.budget.limit)),
        (f"x-ratelimit-remaining-{what}", str(tightest.remaining)),
        (f"x-ratelimit-reset-{what}", f"{_reset_s(tightest, now_ms)}s"),
    ]


def _anthropic_headers(what: str, tightest: BudgetState, now_ms: int) -> Headers:
    """Give Anthropic's names; the reset is a moment."""
    values = str(tightest.budget.limit), str(tightest.remaining), whole_at(tightest.reset_at_ms, now_ms)
    return list(zip(limit_names(what), values, strict=True))


@dataclass(frozen=True, slots=True)
class ShownName:
    """How a budget appears in headers."""

    name: str  # "publication-minute", quoted
    window_s: int


SHOWN: Final = {
    (prefix, window): ShownName(f'"{level.value}-{name}"', window.value.window_ms // 1000)
    for prefix, level in LEVEL_OF_PREFIX.items()
    for window, name in WINDOW_NAMES.items()
    if level is not Level.TENANT
}
"""Which budgets are shown, by the beginning of their subject's name."""


def _title(state: BudgetState) -> tuple[str, Window]:
    return state.subject.name[:2], state.budget.window


def _tightness(shown: tuple[BudgetState, ShownName]) -> tuple[int, int]:
    """Order budgets by what is left, the longer window first where that is equal."""
    return shown[0].remaining, -shown[1].window_s


def _reset_s(state: BudgetState, now_ms: int) -> int:
    """Seconds until the budget is whole again if nothing else is admitted."""
    return ceil_s(state.reset_at_ms - now_ms)
