"""Sends the OpenAI sample's answers, honest or not: a JSON document, server-sent events, or an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from tollkeeper.samples.misbehaviour import Misbehaviour

_JSON: Final = "application/json; charset=utf-8"
_EVENTS: Final = "text/event-stream; charset=utf-8"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    data: Json
    name: str = ""  # the Responses API's events have one

    def encoded(self) -> bytes:
        """The event as it is sent."""
        head = f"event: {self.name}\n" if self.name else ""
        return f"{head}data: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    body: Json


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer in events."""

    events: Iterable[Event]
    end: bytes = b""  # what is sent after the last one


Answer = Whole | Streamed


class RefusedError(Exception):
    """A call that is not served; told in OpenAI's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < web.HTTPInternalServerError.status_code else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def send(request: web.Request, answer: Answer, how: Misbehaviour) -> web.StreamResponse:
    """Send an answer as ``how`` says; raises ``RefusedError`` where it is to be an error instead."""
    await asyncio.sleep(how.wait_ms / 1000)
    if how.status is not None:
        raise RefusedError(how.status, "I was told to fail")
    if how.break_after == 0:
        return _broken(request, web.StreamResponse())
    if isinstance(answer, Whole):
        return await _send_whole(request, json.dumps(how.told(answer.body)).encode(), how)
    return await _send_events(request, answer, how)


async def _send_whole(request: web.Request, body: bytes, how: Misbehaviour) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    if how.gzip:
        response.enable_compression(web.ContentCoding.gzip)
    else:
        response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: how.break_after])
    if how.break_after is not None:
        return _broken(request, response)
    await response.write_eof()
    return response


async def _send_events(request: web.Request, answer: Streamed, how: Misbehaviour) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _EVENTS, "Cache-Control": "no-cache"})
    if how.gzip:
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    for number, event in enumerate(how.ordered(answer.events)):
        if number == how.break_after:
            return _broken(request, response)
        await asyncio.sleep(how.delay_ms / 1000)
        await response.write(Event(how.told(event.data), event.name).encoded())
    await response.write(answer.end)
    await response.write_eof()
    return response


def _broken(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Break the connection off."""
    if request.transport is not None:
        request.transport.abort()
    return response
