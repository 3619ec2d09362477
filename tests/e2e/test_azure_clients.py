"""OpenAI's Azure clients, and its client without threads where it is refused, through a real Envoy to own servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from dialects import TEXT
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI
from upmachine import UpMachine

from tests.e2e.clientground import LLAMA, PIXEL, ClientGround, client_ground

HELLO: Any = [{"role": "user", "content": "Hello!"}]
PICTURE: Any = [
    {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]}
]
ROOM_S = 0.7
"""Of the second for which a burst of one call lasts, less what the first call took."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[ClientGround]:
    """The servers, published."""
    with client_ground(up, "azure-clients") as made:
        yield made


def azures(ground: ClientGround, key: str, retries: int = 2) -> dict[str, Any]:
    """How docs/openai.md says that Azure's clients are made."""
    endpoint = {"azure_endpoint": ground.gateway, "azure_deployment": f"{ground.tenant}-llama"}
    return {**endpoint, "api_version": "2024-10-21", "api_key": key, "max_retries": retries}


@asynccontextmanager
async def async_clients(ground: ClientGround, key: str) -> AsyncIterator[list[AsyncOpenAI]]:
    """Both clients without threads."""
    async with (
        AsyncAzureOpenAI(**azures(ground, key)) as azure,
        AsyncOpenAI(base_url=ground.base, api_key=key) as plain,
    ):
        yield [azure, plain]


def test_azures_client(ground: ClientGround) -> None:
    """Chats, streams, pictures, embeddings, at the path of a deployment."""
    with AzureOpenAI(**azures(ground, ground.key())) as client:
        for messages in (HELLO, PICTURE):
            assert client.chat.completions.create(model=LLAMA, messages=messages).choices[0].message.content == TEXT
        stream = client.chat.completions.create(model=LLAMA, messages=HELLO, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXT
        assert len(client.embeddings.create(model=LLAMA, input=["one", "two"]).data) == 2


def test_azures_client_is_refused(ground: ClientGround) -> None:
    """A key that is none, a model that this deployment is not, a budget that is used up: each its exception."""
    with AzureOpenAI(**azures(ground, "tk_nonsense")) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=LLAMA, messages=HELLO)
    with AzureOpenAI(**azures(ground, ground.key(requestsPerHour=1), retries=5)) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="another", messages=HELLO)
        client.chat.completions.create(model=LLAMA, messages=HELLO)
        begun_s = time.monotonic()
        with pytest.raises(openai.RateLimitError, match="key's hour budget"):
            client.chat.completions.create(model=LLAMA, messages=HELLO)
        assert time.monotonic() - begun_s < 5, "it tried again five times"


async def test_clients_without_threads(ground: ClientGround) -> None:
    """Calls, streams and pictures."""
    async with async_clients(ground, ground.key()) as clients:
        for client in clients:
            for messages in (HELLO, PICTURE):
                answer = await client.chat.completions.create(model=LLAMA, messages=messages)
                assert answer.choices[0].message.content == TEXT
            stream = await client.chat.completions.create(model=LLAMA, messages=HELLO, stream=True)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT


async def test_clients_without_threads_are_refused(ground: ClientGround) -> None:
    """By the same exceptions as the others."""
    async with async_clients(ground, "tk_nonsense") as clients:
        for client in clients:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model=LLAMA, messages=HELLO)
    async with async_clients(ground, ground.key()) as clients:
        for client in clients:
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="nothing", messages=HELLO)


@pytest.mark.parametrize("number", [0, 1], ids=["azure", "plain"])
async def test_clients_without_threads_wait_for_room(ground: ClientGround, number: int) -> None:
    """As long as a refusal says, and are served."""
    async with async_clients(ground, ground.key(burstLimit=1)) as clients:
        begun_s = time.monotonic()
        for _ in range(2):
            answer = await clients[number].chat.completions.create(model=LLAMA, messages=HELLO)
            assert answer.choices[0].message.content == TEXT
        assert time.monotonic() - begun_s > ROOM_S
