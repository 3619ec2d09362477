"""A model server that speaks OpenAI's protocol: chat, completions (both also streamed) and embeddings.

``python -m tollkeeper.samples.openai --listen 127.0.0.1:9002 --model chat-sample``
A model may be called ``tenant/name`` too: a gateway passes that name on.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from tollkeeper.samples import requests
from tollkeeper.samples.serving import MAX_BODY_BYTES, json_body, run_sample
from tollkeeper.samples.words import embedding, reply, tokens

CREATED_S: Final = 1_767_225_600
"""Every answer's ``created``: 2026-01-01. The model has no clock, so equal requests get equal answers."""

R = TypeVar("R", bound=requests.ModelCall)

_NAMES: Final[web.AppKey[tuple[str, ...]]] = web.AppKey("names")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def application(names: tuple[str, ...]) -> web.Application:
    """Serve the model under each of ``names``."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
    app[_NAMES] = names
    app.router.add_get("/v1/models", _list)
    app.router.add_get("/v1/models/{name:.+}", _show)
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/completions", _completions)
    app.router.add_post("/v1/embeddings", _embeddings)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except _RefusedError as refused:
        return web.json_response(refused.body, status=refused.status)
    except web.HTTPClientError as error:
        return web.json_response(_RefusedError(error.status, error.reason).body, status=error.status)
    return response


def _serve_name(request: web.Request, name: str) -> str:
    if name.rpartition("/")[2] not in request.app[_NAMES]:
        raise _RefusedError(404, f"The model {name!r} does not exist", param="model", code="model_not_found")
    return name


async def _read(request: web.Request, kind: type[R]) -> R:
    try:
        call = kind.model_validate(await json_body(request))
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or None
        raise _RefusedError(400, f"{param or 'body'}: {first['msg']}", param=param) from error
    except ValueError as error:
        raise _RefusedError(400, str(error)) from error
    _serve_name(request, call.model)
    return call


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED_S, "owned_by": "tollkeeper-samples"}


async def _list(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(name) for name in request.app[_NAMES]]})


async def _show(request: web.Request) -> web.Response:
    return web.json_response(_card(_serve_name(request, request.match_info["name"])))


@dataclass(frozen=True, slots=True)
class _Answer:
    """One generated text, cut at the most tokens asked for."""

    pieces: list[str]
    finish_reason: str

    @classmethod
    def to(cls, prompt: str, most_tokens: int | None) -> _Answer:
        pieces = tokens(reply(prompt))
        cut = most_tokens is not None and most_tokens < len(pieces)
        return cls(pieces[:most_tokens], "length" if cut else "stop")


def _usage(prompt: str, answers: Sequence[_Answer]) -> dict[str, int]:
    asked, answered = len(tokens(prompt)), sum(len(answer.pieces) for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


async def _chat(request: web.Request) -> web.StreamResponse:
    call = await _read(request, requests.Chat)
    answers = [_Answer.to(call.prompt(), call.most_tokens())] * call.n
    head = {"id": "chatcmpl-sample", "created": CREATED_S, "model": call.model}
    usage = _usage(call.prompt(), answers)
    if call.stream:
        first = {"role": "assistant", "content": ""}
        chunks = _chunks(answers, lambda piece: {"delta": {"content": piece}}, {"delta": {}}, {"delta": first})
        return await _stream(request, head | {"object": "chat.completion.chunk"}, chunks, usage, call)
    choices = [
        {"index": i, "message": {"role": "assistant", "content": "".join(answer.pieces)}} | _finish(answer)
        for i, answer in enumerate(answers)
    ]
    return web.json_response(head | {"object": "chat.completion", "choices": choices, "usage": usage})


async def _completions(request: web.Request) -> web.StreamResponse:
    call = await _read(request, requests.Completion)
    answers = [_Answer.to(call.text(), call.max_tokens)] * call.n
    head = {"id": "cmpl-sample", "object": "text_completion", "created": CREATED_S, "model": call.model}
    usage = _usage(call.text(), answers)
    if call.stream:
        chunks = _chunks(answers, lambda piece: {"text": piece}, {"text": ""}, None)
        return await _stream(request, head, chunks, usage, call)
    choices = [{"index": i, "text": "".join(answer.pieces)} | _finish(answer) for i, answer in enumerate(answers)]
    return web.json_response(head | {"choices": choices, "usage": usage})


def _finish(answer: _Answer) -> dict[str, Any]:
    return {"logprobs": None, "finish_reason": answer.finish_reason}


def _chunks(
    answers: Sequence[_Answer], shape: Any, last: dict[str, Any], first: dict[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """Yield the choices of each chunk: an opening where there is one, a chunk a token, and the end."""
    for index, answer in enumerate(answers):
        opening = [] if first is None else [first]
        for part in (*opening, *map(shape, answer.pieces)):
            yield {"index": index, "logprobs": None, "finish_reason": None} | part
        yield {"index": index} | _finish(answer) | last


async def _stream(
    request: web.Request,
    head: dict[str, Any],
    chunks: Iterator[dict[str, Any]],
    usage: dict[str, int],
    call: requests.Generation,
) -> web.StreamResponse:
    """Send the chunks as server-sent events; with ``include_usage`` each has ``usage``, null but in the last."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    tail = {"usage": None} if call.wants_usage() else {}
    for chunk in chunks:
        await _event(response, head | {"choices": [chunk]} | tail)
    if call.wants_usage():
        await _event(response, head | {"choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _event(response: web.StreamResponse, body: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n")


async def _embeddings(request: web.Request) -> web.Response:
    call = await _read(request, requests.Embedding)
    vectors = [embedding(text, call.dimensions) for text in call.texts()]
    shown = vectors if call.encoding_format == "float" else [_base64(vector) for vector in vectors]
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(shown)]
    asked = sum(len(tokens(text)) for text in call.texts())
    usage = {"prompt_tokens": asked, "total_tokens": asked}
    return web.json_response({"object": "list", "data": data, "model": call.model, "usage": usage})


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


if __name__ == "__main__":
    run_sample(application, name="tollkeeper.samples.openai")
