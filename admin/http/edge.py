"""Between HTTP and the handlers: the only module that sees requests and responses.

Checks who asks, what stands in the query and in the content type, and turns whatever goes wrong into a problem
document. Every answer and every log line of a request carries its id.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from multidict import MultiMapping

from admin.committing import MAX_TRIES
from admin.http import problems
from admin.http.calls import ApiCall, Reply
from admin.http.nearest import MAX_NAME_SHOWN, nearest
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.http.routes import Route
from admin.people.callers import ANONYMOUS, Caller
from admin.people.pace import refusal, told
from admin.people.permissions import Access, require_permission
from admin.people.sessions import MayCall, caller_of, may_begin, may_finish
from admin.services import Services
from catalog.damage import CorruptRecord
from catalog.records import Role
from catalog.store.store import ActorChanged, OutcomeUnknown, StoreUnavailable
from runtime import log

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_OPEN_BODY_BYTES: Final = 8 * 1024
"""Of calls that need no login: anybody can send them."""
BODY_S: Final = 30.0
"""Longest time for a body to come, from the headers on: a megabyte at 35 kB/s."""
REQUEST_ID: Final = "X-Request-Id"
_GOOD_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PACE: Final = web.RequestKey("pace", Mapping)
_FORWARDED: Final = "X-Forwarded-For"
_RETRY: Final = {"Retry-After": "1"}
_CLOSE: Final = {"Connection": "close"}
_log: Final = logging.getLogger(__name__)


class Edge:
    """Turns a route into an aiohttp handler."""

    def __init__(self, services: Services, body_s: float = BODY_S) -> None:
        self._services = services
        self._body_s = body_s

    async def answer(self, route: Route, request: web.Request) -> web.Response:
        """Answer one request of a route."""
        caller = await self._caller(route, request)
        self._count(caller, request)
        path, query = dict(request.match_info), _checked_query(route, request.query)
        await require_permission(self._services.store, caller, route.access, path, query)
        raw = await _read_body(route, request, self._body_s)
        call = ApiCall(
            services=self._for(caller),
            caller=caller,
            path=path,
            query=query,
            raw_body=raw,
            address=self._services.proxies.client(request.remote or "", request.headers.getall(_FORWARDED, [])),
            request_id=log.request_id.get(),
            if_match=", ".join(request.headers.getall("If-Match", [])),
        )
        return _response(await self._done(route, call, request))

    async def _done(self, route: Route, call: ApiCall, request: web.Request) -> Reply:
        """Do what was asked; again from the start where the caller's record was changed and they still may.

        Nothing was written by then: each commit is held to the record that authorised the caller.
        """
        for _ in range(MAX_TRIES):
            try:
                return await route.handler(call)
            except ActorChanged:
                caller = await self._caller(route, request, may_call=may_finish)
                await require_permission(self._services.store, caller, route.access, call.path, call.query)
                call = dataclasses.replace(call, services=self._for(caller), caller=caller)
        raise Problem(Code.CONFLICT, "your own record kept changing; try again")

    def _for(self, caller: Caller) -> Services:
        """Give what a caller may work with: who only reads is shown no key's text, though it could be recovered."""
        services = self._services
        if caller.role is not Role.ADMIN:  # who has to end what somebody floods is not held up by the flood
            services = dataclasses.replace(services, committer=services.committer.paced(services.writes))
        if not services.mint.recovery or caller.role in {Role.ADMIN, Role.OPERATOR}:
            return services
        return dataclasses.replace(services, mint=dataclasses.replace(services.mint, recovery=False))

    def _count(self, caller: Caller, request: web.Request) -> None:
        """Count a call of somebody who is logged in; raises ``Problem`` TOO_MANY_REQUESTS."""
        if caller.authorised is None:
            return
        counted = self._services.calls.count(caller.user, self._services.clock.monotonic_ms())
        request[_PACE] = told(self._services.paces, counted)
        if counted.wait_ms:
            raise refusal(counted, self._services.paces.user_calls)

    async def _caller(self, route: Route, request: web.Request, *, may_call: MayCall = may_begin) -> Caller:
        if route.access is Access.OPEN:
            return ANONYMOUS
        services, authorization = self._services, request.headers.get("Authorization", "")
        now_ms = services.clock.wall_ms()
        caller = await caller_of(authorization, services.mint.secrets, services.store, now_ms, may_call=may_call)
        if caller.is_service:
            await services.last_used.note(caller.user, now_ms)
        return caller


def _checked_query(route: Route, query: MultiMapping[str]) -> Mapping[str, str]:
    known = [parameter.name for parameter in route.query]
    faults = [
        Fault(name[:MAX_NAME_SHOWN], Rule.UNKNOWN_FIELD, "is not a parameter of this call" + nearest(name, known))
        for name in dict.fromkeys(query)
        if name not in known
    ]
    faults += [Fault(name, Rule.FORMAT, "must be given once") for name in known if len(query.getall(name, [])) > 1]
    if faults:
        raise invalid(Code.INVALID_REQUEST, faults)
    return dict(query)


async def _read_body(route: Route, request: web.Request, within_s: float) -> bytes:
    if route.body is None:
        return b""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding")
    try:
        async with asyncio.timeout(within_s):
            raw = await _read_bounded(request, MAX_OPEN_BODY_BYTES if route.access is Access.OPEN else MAX_BODY_BYTES)
    except TimeoutError:
        raise Problem(
            Code.BODY_TOO_SLOW, f"it has to be complete {within_s:.0f} s after the headers", headers=_CLOSE
        ) from None
    if (raw or not route.body_optional) and request.content_type != "application/json":
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")
    return raw


async def _read_bounded(request: web.Request, most: int) -> bytes:
    """Read a body, no more of it than it may have."""
    if (request.content_length or 0) > most:
        raise _too_large(most)
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > most:
            raise _too_large(most)
    return bytes(raw)


def _too_large(most: int) -> Problem:
    return Problem(Code.BODY_TOO_LARGE, f"at most {most} bytes")


def _response(reply: Reply) -> web.Response:
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    text = reply.body.model_dump_json(by_alias=True)
    return web.Response(status=reply.status, text=text, content_type="application/json", headers=reply.headers)


def problem_response(problem: Problem) -> web.Response:
    """Write a problem document."""
    body = problem.document() | {"requestId": log.request_id.get()}
    response = web.json_response(body, status=problem.status, headers=problem.headers)
    response.content_type = problems.CONTENT_TYPE
    return response


@web.middleware
async def identified(request: web.Request, handler: Any) -> web.StreamResponse:
    """Give the request an id, the client's own where it is a plain one, and say how many more may follow."""
    sent = request.headers.get(REQUEST_ID, "")
    log.request_id.set(sent if _GOOD_REQUEST_ID.fullmatch(sent) else secrets.token_hex(8))
    response: web.StreamResponse = await handler(request)
    response.headers[REQUEST_ID] = log.request_id.get()
    for name, value in request.get(_PACE, {}).items():
        response.headers.setdefault(name, value)
    return response


@web.middleware
async def explained(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer everything that goes wrong with a problem document."""
    try:
        response: web.StreamResponse = await handler(request)
    except Exception as error:  # noqa: BLE001  the last net: whatever it is, the client gets a problem document
        return problem_response(_told(request, error))
    return response


_LOOK: Final = "the store did not answer in time: look with GET; rotate-key replaces a key text that was not received"


def _told(request: web.Request, error: Exception) -> Problem:
    """Say what went wrong; what is the store's or our fault is logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    if isinstance(error, OutcomeUnknown):
        return Problem(Code.OUTCOME_UNKNOWN, _LOOK, headers=_RETRY)
    if isinstance(error, StoreUnavailable | CorruptRecord):
        _log.error("%s %s: %s", request.method, request.rel_url.raw_path, error)
        if isinstance(error, CorruptRecord):
            return Problem(Code.CORRUPT_RECORD, f"{error}; an admin may remove it with DELETE")
        return Problem(Code.STORE_UNAVAILABLE, "nothing was changed", headers=_RETRY)
    _log.error("%s %s failed", request.method, request.rel_url.raw_path, exc_info=error)
    return Problem(Code.INTERNAL, "the log tells more under this request's id")


def _of_http(error: web.HTTPException) -> Problem:
    """Turn what the HTTP library refuses into a problem."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(Code.METHOD_NOT_ALLOWED, f"allowed: {allowed}", headers={"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return Problem(Code.NOT_FOUND, "there is no such path")
    return Problem(Code.INVALID_REQUEST, error.reason)
