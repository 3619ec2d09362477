"""A model server that speaks OpenAI's protocol: chat, completions, responses (all also streamed) and embeddings.

``python -m tollkeeper.samples.openai --listen 127.0.0.1:9002 --model chat-sample``
A model may be called ``tenant/name`` too: a gateway passes that name on. It can be told to misbehave, see there.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

from aiohttp import web
from pydantic import AfterValidator, Field, ValidationError

from runtime.settings import Words
from tollkeeper.samples import requests, responses
from tollkeeper.samples.answering import Answer, Event, RefusedError, Streamed, Whole, send
from tollkeeper.samples.generating import CONTEXT_TOKENS, ContextExceededError, Counted, Generated, prompt_tokens
from tollkeeper.samples.misbehaviour import HEADER, HONEST, Misbehaviour, misbehaviour_of
from tollkeeper.samples.serving import SampleSettings, json_body, run_sample
from tollkeeper.samples.words import embedding

CREATED_S: Final = 1_767_225_600
"""Every answer's ``created``: 2026-01-01. The model has no clock, so equal requests get equal answers."""

MAX_BODY_BYTES: Final = 8 * 2**20
"""Twice of what a gateway lets through unless told otherwise."""

Json = dict[str, Any]
Handle = Callable[[web.Request], Awaitable[Answer]]
R = TypeVar("R", bound=requests.ModelCall)


def _understood(words: tuple[str, ...]) -> tuple[str, ...]:
    misbehaviour_of(words)
    return words


class OpenAiSettings(SampleSettings):
    """A sample model server that speaks OpenAI's protocol."""

    context_tokens: Annotated[int, Field(ge=1)] = CONTEXT_TOKENS
    """Most tokens of a prompt and one answer to it."""

    misbehave: Annotated[Words, AfterValidator(_understood)] = ()
    """What is wrong with every answer, for tests of gateways: `usage=1000000,delay-ms=20`. Nothing unless given."""

    obey_callers: bool = False
    """Whether a call's header x-sample-misbehave says what is wrong with its answer. Off, for callers could lie so."""


_SETTINGS: Final[web.AppKey[OpenAiSettings]] = web.AppKey("settings")


def application(settings: OpenAiSettings) -> web.Application:
    """Serve the model under each of its names."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
    app[_SETTINGS] = settings
    app.router.add_get("/v1/models", _list)
    app.router.add_get("/v1/models/{name:.+}", _show)
    app.router.add_post("/v1/chat/completions", _answered(_chat))
    app.router.add_post("/v1/completions", _answered(_completions))
    app.router.add_post("/v1/responses", _answered(_responses))
    app.router.add_post("/v1/embeddings", _answered(_embeddings))
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except RefusedError as refused:
        return _told(refused)
    except ContextExceededError as error:
        return _told(RefusedError(400, str(error), code="context_length_exceeded"))
    except web.HTTPClientError as error:
        return _told(RefusedError(error.status, error.reason))
    return response


def _told(refused: RefusedError) -> web.Response:
    return web.json_response(refused.body, status=refused.status)


def _answered(handle: Handle) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await send(request, await handle(request), _misbehaviour(request))

    return handler


def _misbehaviour(request: web.Request) -> Misbehaviour:
    settings = request.app[_SETTINGS]
    told = request.headers.get(HEADER, "") if settings.obey_callers else ""
    words = [*settings.misbehave, *filter(None, told.split(","))]
    try:
        return misbehaviour_of(words) if words else HONEST
    except ValueError as error:
        raise RefusedError(400, f"{HEADER}: {error}") from error


def _serve_name(request: web.Request, name: str) -> str:
    if name.rpartition("/")[2] not in request.app[_SETTINGS].model:
        raise RefusedError(404, f"The model {name!r} does not exist", param="model", code="model_not_found")
    return name


async def _read(request: web.Request, kind: type[R]) -> R:
    try:
        call = kind.model_validate(await json_body(request))
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or None
        raise RefusedError(400, f"{param or 'body'}: {first['msg']}", param=param) from error
    except ValueError as error:
        raise RefusedError(400, str(error)) from error
    _serve_name(request, call.model)
    return call


def _card(request: web.Request, name: str) -> Json:
    """A model as the list tells of it; its context as vLLM tells it."""
    card = {"id": name, "object": "model", "created": CREATED_S, "owned_by": "tollkeeper-samples"}
    return {**card, "max_model_len": request.app[_SETTINGS].context_tokens}


async def _list(request: web.Request) -> web.Response:
    names = request.app[_SETTINGS].model
    return web.json_response({"object": "list", "data": [_card(request, name) for name in names]})


async def _show(request: web.Request) -> web.Response:
    return web.json_response(_card(request, _serve_name(request, request.match_info["name"])))


def _generate(request: web.Request, prompt: str, most_tokens: int | None) -> Generated:
    return Generated.to(prompt, most_tokens, request.app[_SETTINGS].context_tokens)


def _usage(counted: Counted) -> Json:
    return {
        "prompt_tokens": counted.prompt,
        "completion_tokens": counted.completion,
        "total_tokens": counted.total,
    }


async def _chat(request: web.Request) -> Answer:
    call = await _read(request, requests.Chat)
    answers = [_generate(request, call.prompt(), call.most_tokens())] * call.n
    head = {"id": "chatcmpl-sample", "created": CREATED_S, "model": call.model}
    usage = _usage(Counted.of(call.prompt(), answers))
    if call.stream:
        first = {"role": "assistant", "content": ""}
        chunks = _chunks(answers, lambda piece: {"delta": {"content": piece}}, {"delta": {}}, {"delta": first})
        return _streamed(head | {"object": "chat.completion.chunk"}, chunks, usage, call)
    choices = [
        {"index": i, "message": {"role": "assistant", "content": answer.text}} | _finish(answer)
        for i, answer in enumerate(answers)
    ]
    return Whole(head | {"object": "chat.completion", "choices": choices, "usage": usage})


async def _completions(request: web.Request) -> Answer:
    call = await _read(request, requests.Completion)
    answers = [_generate(request, call.text(), call.max_tokens)] * call.n
    head = {"id": "cmpl-sample", "object": "text_completion", "created": CREATED_S, "model": call.model}
    usage = _usage(Counted.of(call.text(), answers))
    if call.stream:
        chunks = _chunks(answers, lambda piece: {"text": piece}, {"text": ""}, None)
        return _streamed(head, chunks, usage, call)
    choices = [{"index": i, "text": answer.text} | _finish(answer) for i, answer in enumerate(answers)]
    return Whole(head | {"choices": choices, "usage": usage})


async def _responses(request: web.Request) -> Answer:
    call = await _read(request, requests.Response)
    answer = _generate(request, call.prompt(), call.max_output_tokens)
    counted = Counted.of(call.prompt(), [answer])
    if call.stream:
        return Streamed(responses.events(call, answer, counted, CREATED_S))
    return Whole(responses.document(call, answer, counted, CREATED_S))


def _finish(answer: Generated) -> Json:
    return {"logprobs": None, "finish_reason": "length" if answer.is_cut else "stop"}


def _chunks(answers: Sequence[Generated], shape: Any, last: Json, first: Json | None) -> Iterator[Json]:
    """Yield the choices of each chunk: an opening where there is one, a chunk a token, and the end."""
    for index, answer in enumerate(answers):
        opening = [] if first is None else [first]
        for part in (*opening, *map(shape, answer.pieces)):
            yield {"index": index, "logprobs": None, "finish_reason": None} | part
        yield {"index": index} | _finish(answer) | last


def _streamed(head: Json, chunks: Iterator[Json], usage: Json, call: requests.Generation) -> Answer:
    """Make events of chunks; with ``include_usage`` each has ``usage``, null but in the last."""
    return Streamed(_events(head, chunks, usage if call.wants_usage() else None), end=b"data: [DONE]\n\n")


def _events(head: Json, chunks: Iterator[Json], usage: Json | None) -> Iterator[Event]:
    tail = {"usage": None} if usage else {}
    for chunk in chunks:
        yield Event(head | {"choices": [chunk]} | tail)
    if usage:
        yield Event(head | {"choices": [], "usage": usage})


async def _embeddings(request: web.Request) -> Answer:
    call = await _read(request, requests.Embedding)
    asked = prompt_tokens(call.texts(), request.app[_SETTINGS].context_tokens)
    vectors = [embedding(text, call.dimensions) for text in call.texts()]
    shown = vectors if call.encoding_format == "float" else [_base64(vector) for vector in vectors]
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(shown)]
    usage = {"prompt_tokens": asked, "total_tokens": asked}
    return Whole({"object": "list", "data": data, "model": call.model, "usage": usage})


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


if __name__ == "__main__":
    run_sample(OpenAiSettings, application, name="tollkeeper.samples.openai")
