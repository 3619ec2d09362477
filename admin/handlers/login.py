"""Logging in. Logins are written to the audit stream with their address, a bounded number of them a minute."""

from __future__ import annotations

import logging
from typing import Final

from admin.http.calls import ApiCall, Reply
from admin.http.problems import Code, Problem
from admin.people.sessions import make_token
from admin.people.throttle import audit_throttles
from admin.schemas.schemas import LoginInput
from admin.views import records as views
from catalog.changes import Note
from catalog.records import Kind
from catalog.store.store import StoreUnavailable

UNKNOWN: Final = "(unknown)"
"""Stands for a name that is no user's: people type passwords there."""

_log: Final = logging.getLogger(__name__)
_OUTCOMES: Final = {Code.LOGIN_FAILED: "failed", Code.TOO_MANY_REQUESTS: "throttled"}


async def login(call: ApiCall) -> Reply:
    """Give a token for a user name and its password."""
    services, body = call.services, call.body(LoginInput)
    try:
        user = await services.logins.login(body.username, body.password.get_secret_value(), call.address)
    except Problem as problem:
        if outcome := _OUTCOMES.get(problem.code):
            services.metrics.logins.labels(outcome).inc()
            _log.warning("login %s from %s", outcome, call.address)
        if problem.code is Code.LOGIN_FAILED:
            await _note(call, "login.failed", await _told_name(call, body.username))
        raise
    services.metrics.logins.labels("ok").inc()
    await _note(call, "login", user.id)
    token = make_token(user, services.mint.secrets.jwt_key, services.clock.wall_ms())
    return Reply(200, views.session(user, token), {"Cache-Control": "no-store"})


async def _told_name(call: ApiCall, name: str) -> str:
    return name if await call.services.store.get(Kind.USER, name) is not None else UNKNOWN


async def _note(call: ApiCall, action: str, name: str) -> None:
    """Write a login down, unless so many were in this minute; one that cannot be written is answered all the same."""
    proven = name if action == "login" else ""
    note = Note(proven, action, name, tenant="", request_id=call.request_id, detail={"address": call.address})
    try:
        await call.services.throttler.attempt(audit_throttles(action))
        await call.services.store.note(note)
    except (Problem, StoreUnavailable) as error:
        call.services.metrics.unaudited_logins.inc()
        _log.info("%s is not in the audit stream: %s", action, error)
