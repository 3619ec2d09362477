"""Ollama's own client at a server's own API, published as it is: chat, text, streams, tools, lists, refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import ollama
from steps import HELLO, KEY, LLAMA, LONG, NATIVE, PIXEL, WEATHER, WRONG, tell


def client(key: str) -> ollama.Client:
    return ollama.Client(host=NATIVE, headers={"Authorization": f"Bearer {key}"})


async def by_async() -> list[Any]:
    one = ollama.AsyncClient(host=NATIVE, headers={"X-API-Key": KEY})
    answer = await one.chat(model=LLAMA, messages=HELLO)
    stream = await one.chat(model=LLAMA, messages=HELLO, stream=True)
    return [answer.message.content, [piece.message.content async for piece in stream]]


def tool() -> list[Any]:
    (call,) = client(KEY).chat(model=LLAMA, messages=HELLO, tools=[WEATHER]).message.tool_calls or []
    return [call.function.name, dict(call.function.arguments)]


def used_up() -> Any:
    one = client(LONG)
    one.list()
    return one.list()


good = client(KEY)
tell(
    chat=lambda: good.chat(model=LLAMA, messages=HELLO).message.content,
    stream=lambda: [piece.message.content for piece in good.chat(model=LLAMA, messages=HELLO, stream=True)],
    counted=lambda: [*good.chat(model=LLAMA, messages=HELLO, stream=True)][-1].eval_count,
    generate=lambda: good.generate(model=LLAMA, prompt="Hello!").response,
    generate_stream=lambda: [piece.response for piece in good.generate(model=LLAMA, prompt="Hello!", stream=True)],
    by_async=lambda: asyncio.run(by_async()),
    tool=tool,
    picture=lambda: (
        good.chat(model=LLAMA, messages=[{**HELLO[0], "images": [PIXEL.rpartition(",")[2]]}]).message.content
    ),
    models=lambda: [one.model for one in good.list().models],
    shown=lambda: good.show(LLAMA).capabilities,
    unknown=lambda: good.chat(model="nothing", messages=HELLO),
    refused=lambda: client(WRONG).chat(model=LLAMA, messages=HELLO),
    used_up=used_up,
)
