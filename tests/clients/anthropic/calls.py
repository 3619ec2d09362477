"""Runs what Anthropic's client does, step by step, and prints a line of JSON: what each returned, or its refusal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic

BASE, KEY, WRONG, SLOW, LONG, SMALL = (os.environ[name] for name in ("BASE", "KEY", "WRONG", "SLOW", "LONG", "SMALL"))
MODEL = os.environ["MODEL"]
HELLO: Any = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Hello!"}]}

DEAR: Any = HELLO | {"model": "small", "max_tokens": 100_000, "stream": True}


def client(key: str = KEY, *, base: str = BASE, retries: int = 0) -> Anthropic:
    """A client as people make it."""
    return Anthropic(base_url=base, api_key=key, max_retries=retries)


def told(step: Callable[[], Any]) -> Any:
    """What a step returned; or its error, by what the client itself knows of it."""
    try:
        return step()
    except anthropic.APIStatusError as error:
        return {
            "error": type(error).__name__,
            "status": error.status_code,
            "type": error.type,
            "code": error.error_code,
            "message": error.api_message,
            "request_id": error.request_id,
            "body": error.body,
            "retry_after": error.response.headers.get("retry-after"),
            "x_request_id": error.response.headers.get("x-request-id"),
        }


def create() -> Any:
    """A message, by the header of the client and by a bearer token; with what the client shows of an answer."""
    message = client().messages.create(**HELLO)
    bearer = Anthropic(base_url=BASE, api_key=None, auth_token=KEY, max_retries=0).messages.create(**HELLO)
    usage = message.usage
    counted = [
        usage.input_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
    ]
    return [message.content[0].text, bearer.content[0].text, counted, message._request_id]


def headers() -> Any:
    """What the answer's headers say of limits."""
    return dict(client().messages.with_raw_response.create(**HELLO).headers)


def stream() -> Any:
    """The pieces of a stream, and what they come to."""
    with client().messages.stream(**HELLO) as events:
        return [list(events.text_stream), events.get_final_message().usage.output_tokens, events.request_id]


def by_async() -> Any:
    """The same calls of the other client."""

    async def calls() -> Any:
        async with AsyncAnthropic(base_url=BASE, api_key=KEY, max_retries=0) as one:
            message = await one.messages.create(**HELLO)
            async with one.messages.stream(**HELLO) as events:
                pieces = [text async for text in events.text_stream]
            listed = [model.id async for model in one.models.list()]
            refused: Any = None
            try:
                await one.messages.create(**HELLO | {"model": "nothing"})
            except anthropic.NotFoundError as error:
                refused = [error.type, error.request_id]
            return [message.content[0].text, pieces, listed, refused]

    return asyncio.run(calls())


def count() -> Any:
    """How many tokens a prompt is, by both APIs of the client."""
    asked = {"model": MODEL, "messages": HELLO["messages"]}
    beta = client().beta.messages.count_tokens(**asked, betas=["token-counting-2024-11-01"])
    return [client().messages.count_tokens(**asked).input_tokens, beta.input_tokens]


def listed() -> Any:
    """Every model, a page of two at a time; backwards; and one by its name."""
    models = client().models
    names = [model.id for model in models.list(limit=2)]
    back = [model.id for model in models.list(limit=1, before_id=names[-1])]
    one = models.retrieve(names[0])
    return [names, back, [one.type, one.id, one.display_name, one.created_at.isoformat(), one.lifecycle]]


def used_up() -> Any:
    """The second call of an hour."""
    told(lambda: client(LONG).messages.create(**HELLO).id)
    return client(LONG).messages.create(**HELLO).id


def waited() -> Any:
    """One call more than there is room for in a second: the client waits and is answered."""
    patient = client(SLOW, retries=2)
    patient.messages.create(**HELLO)
    begun_s = time.monotonic()
    return [patient.messages.create(**HELLO).content[0].text, time.monotonic() - begun_s]


STEPS: dict[str, Callable[[], Any]] = {
    "create": create,
    "headers": headers,
    "stream": stream,
    "by_async": by_async,
    "count": count,
    "listed": listed,
    "waited": waited,
    "wrong_key": lambda: client(WRONG).messages.create(**HELLO),
    "wrong_key_lists": client(WRONG).models.list,
    "unknown": lambda: client().messages.create(**HELLO | {"model": "nothing"}),
    "unknown_card": lambda: client().models.retrieve("nothing"),
    "unknown_page": lambda: client().models.list(after_id="nothing"),
    "not_allowed": lambda: client(SMALL).messages.create(**HELLO),
    "bad_field": lambda: client().messages.create(**HELLO, extra_body={"n": "x"}),
    "too_dear": lambda: client(SMALL).messages.create(
        **HELLO | {"model": "small", "max_tokens": 100_000, "stream": True}
    ),
    "used_up": used_up,
    "batches": lambda: client().messages.batches.list().data,
    "files": lambda: client().beta.files.list().data,
    "too_large": lambda: client().messages.create(**HELLO, system="x" * 5_000_000),
    "server_away": lambda: client().messages.create(**HELLO | {"model": "away"}),
    "twice_v1": lambda: client(base=f"{BASE}/v1").messages.create(**HELLO),
    "own_base": lambda: client(base=f"{BASE}/v1/models/nowhere-of-all").messages.create(**HELLO),
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: told(step) for name, step in STEPS.items()}, default=str) + "\n")
