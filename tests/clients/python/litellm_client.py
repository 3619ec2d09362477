"""LiteLLM as a client: completion, acompletion, streams, tools, responses, and which exception each refusal becomes."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
from steps import BASE, FEW, GATEWAY, HELLO, KEY, LLAMA, LONG, PIXEL, QWEN, SLOW, WEATHER, WRONG, tell, waited

litellm.suppress_debug_info = True
litellm.telemetry = False


def asked(key: str = KEY, model: str = LLAMA, **more: Any) -> dict[str, Any]:
    made = {"model": f"openai/{model}", "messages": HELLO, "api_base": BASE, "api_key": key, "timeout": 20}
    return {**made, **more}


def chat(**more: Any) -> str:
    return litellm.completion(**asked(**more)).choices[0].message.content


def text_of(pieces: list[Any]) -> str:
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def usage() -> list[Any]:
    pieces = [*litellm.completion(**asked(stream=True, stream_options={"include_usage": True}))]
    return [text_of(pieces), pieces[-1].usage.total_tokens]


async def by_async() -> list[str]:
    whole = await litellm.acompletion(**asked())
    stream = await litellm.acompletion(**asked(stream=True))
    return [whole.choices[0].message.content, text_of([piece async for piece in stream])]


def tool() -> list[str]:
    (call,) = litellm.completion(**asked(tools=[WEATHER])).choices[0].message.tool_calls
    return [call.function.name, call.function.arguments]


def picture() -> str:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    return chat(messages=[{"role": "user", "content": parts}])


def used_up() -> str:
    chat(key=LONG)
    return chat(key=LONG)


tell(
    chat=chat,
    another=lambda: chat(model=QWEN),
    stream=usage,
    by_async=lambda: asyncio.run(by_async()),
    tool=tool,
    picture=picture,
    response=lambda: (
        litellm.responses(model=f"openai/{LLAMA}", input="Hello!", api_base=BASE, api_key=KEY).output[0].content[0].text
    ),
    embedding=lambda: len(
        litellm.embedding(model=f"openai/{LLAMA}", input=["one", "two"], api_base=BASE, api_key=KEY).data
    ),
    anthropic=lambda: (
        litellm.completion(model=f"anthropic/{QWEN}", messages=HELLO, api_base=GATEWAY, api_key=KEY, max_tokens=64)
        .choices[0]
        .message.content
    ),
    models=lambda: sorted(
        litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", api_key=KEY, api_base=BASE)
    ),
    refused=lambda: chat(key=WRONG),
    unknown=lambda: chat(model="nothing"),
    too_large=lambda: chat(key=FEW, max_tokens=5_000),
    bad=lambda: chat(max_tokens=0.5),
    waited=lambda: waited(lambda: chat(key=SLOW, max_retries=2)),
    waited_by_itself=lambda: waited(lambda: chat(key=SLOW, num_retries=2)),
    used_up=used_up,
)
