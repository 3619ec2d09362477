"""LangChain at a gateway: OpenAI's chat models and embeddings, Anthropic's chat model, streams, tools, refusals."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings
from steps import AZURE, BASE, FEW, GATEWAY, KEY, LLAMA, LONG, PIXEL, QWEN, SLOW, WRONG, tell, waited


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Rain in {city}"


def model(key: str = KEY, name: str = LLAMA, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=BASE, api_key=key, timeout=20, **more)


def claude(key: str = KEY, **more: Any) -> ChatAnthropic:
    made = {"model": QWEN, "base_url": GATEWAY, "api_key": key, "max_tokens": 64, "timeout": 20}
    return ChatAnthropic(**{**made, **more})


def text_of(pieces: list[Any]) -> str:
    return "".join(piece.text for piece in pieces)


def usage() -> list[Any]:
    whole = None
    for piece in model(stream_usage=True).stream("Hello!"):
        whole = piece if whole is None else whole + piece
    return [whole.text, whole.usage_metadata["total_tokens"]]


async def by_async() -> list[str]:
    whole = await model().ainvoke("Hello!")
    return [whole.text, text_of([piece async for piece in model().astream("Hello!")])]


def used_tool(one: Any) -> list[Any]:
    """Ask, call the tool that was asked for, and tell its result."""
    able = one.bind_tools([weather])
    asked = able.invoke("Is it raining in Paris?")
    results = [weather.invoke(call) for call in asked.tool_calls]
    return [results[0].content, able.invoke([HumanMessage("Is it raining in Paris?"), asked, *results]).text]


def picture(one: Any) -> str:
    kind, _, data = PIXEL.removeprefix("data:").partition(";base64,")
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source_type": "base64", "mime_type": kind, "data": data},
    ]
    return one.invoke([HumanMessage(content=parts)]).text


def used_up(one: Any) -> str:
    one.invoke("Hello!")
    return one.invoke("Hello!").text


tell(
    chat=lambda: model().invoke("Hello!").text,
    another=lambda: model(name=QWEN).invoke("Hello!").text,
    stream=usage,
    by_async=lambda: asyncio.run(by_async()),
    batch=lambda: [one.text for one in model().batch(["Hello!"] * 3)],
    tool=lambda: used_tool(model()),
    picture=lambda: picture(model()),
    response=lambda: model(use_responses_api=True).invoke("Hello!").text,
    response_stream=lambda: text_of([*model(use_responses_api=True).stream("Hello!")]),
    response_tool=lambda: used_tool(model(use_responses_api=True)),
    embedding=lambda: len(
        OpenAIEmbeddings(model=LLAMA, base_url=BASE, api_key=KEY, check_embedding_ctx_length=False).embed_documents(
            ["one", "two"]
        )
    ),
    azure=lambda: (
        AzureChatOpenAI(
            azure_endpoint=GATEWAY,
            azure_deployment=AZURE,
            api_version="2024-10-21",
            api_key=KEY,
        )
        .invoke("Hello!")
        .text
    ),
    anthropic=lambda: claude().invoke("Hello!").text,
    anthropic_stream=lambda: text_of([*claude().stream("Hello!")]),
    anthropic_tool=lambda: used_tool(claude()),
    anthropic_picture=lambda: picture(claude()),
    anthropic_refused=lambda: claude(WRONG).invoke("Hello!").text,
    anthropic_waited=lambda: waited(lambda: claude(SLOW).invoke("Hello!").text),
    refused=lambda: model(WRONG).invoke("Hello!").text,
    unknown=lambda: model(name="nothing").invoke("Hello!").text,
    too_large=lambda: model(FEW, max_tokens=5_000).invoke("Hello!").text,
    waited=lambda: waited(lambda: model(SLOW).invoke("Hello!").text),
    used_up=lambda: used_up(model(LONG)),
)
