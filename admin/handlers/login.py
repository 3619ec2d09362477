"""Logging in."""

from __future__ import annotations

import logging
from typing import Final

from admin.calls import ApiCall, Reply
from admin.handlers import views
from admin.problems import Code, Problem
from admin.schemas import LoginInput
from admin.sessions import make_token

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
        raise
    services.metrics.logins.labels("ok").inc()
    token = make_token(user, services.mint.secrets.jwt_key, services.clock.wall_ms())
    return Reply(200, views.session(user, token), {"Cache-Control": "no-store"})
