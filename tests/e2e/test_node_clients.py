"""OpenAI's client for node and Vercel's AI SDK, as people install them, through a real Envoy to their own servers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from clients import client_family
from dialects import TEXT
from upmachine import UpMachine

from tests.e2e.clientground import LLAMA, QWEN, ClientGround, client_ground

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WAIT_S = 0.6
"""Of a second's wait; the rest may have gone by between two calls."""
WEATHER = {"name": "weather", "arguments": '{"city": "Paris"}'}


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[ClientGround]:
    """The servers, published."""
    client_family("vercel")
    with client_ground(up, "node-clients") as made:
        yield made


@pytest.fixture(scope="module")
def said(ground: ClientGround) -> Any:
    """What a script's steps said; each script is run once."""

    @cache
    def run(script: str) -> Any:
        return client_family("vercel").run(script, timeout_s=100, **ground.variables)

    return run


def waited(told: Any) -> None:
    """A call that came too early was answered all the same, tried again once: when there was room, and not before."""
    text, spent_s, answered = told
    assert (text, answered) == (TEXT, [429, 200])
    assert spent_s > WAIT_S


def test_openais_client_for_node(said: Any) -> None:
    """Chats, streams with usage, responses, lists, tools, pictures, embeddings."""
    told = said("openai_node.mjs")
    assert told["text"] == told["picture"] == TEXT
    assert told["stream"] == [TEXT, 10]
    assert told["response"] == [TEXT, "response.completed"]
    assert {LLAMA, QWEN} <= {*told["models"]}
    assert told["one_model"] == LLAMA
    assert told["tool"] == WEATHER
    assert told["embeddings"] == 2


def test_openais_client_for_node_is_refused(said: Any) -> None:
    """By the exceptions that it has for each; it waits where that is worth it, and gives up at once where it is not."""
    told = said("openai_node.mjs")
    refused = {"error": "AuthenticationError", "status": 401, "code": "invalid_api_key", "asked": True}
    assert told["refused"].items() >= refused.items()
    unknown = {"error": "NotFoundError", "status": 404, "code": "model_not_found", "asked": True}
    assert told["unknown"].items() >= unknown.items()
    used_up = {"error": "RateLimitError", "status": 429, "code": "rate_limit_exceeded", "answered": [429]}
    assert told["used_up"].items() >= used_up.items()
    waited(told["waited"])


def test_azures_client_for_node(said: Any) -> None:
    """A model that is published at a deployment's path, by the header ``api-key``."""
    told = said("openai_node.mjs")
    assert told["azure"] == TEXT
    assert told["azure_refused"].items() >= {"error": "AuthenticationError", "code": "invalid_api_key"}.items()


@pytest.mark.parametrize("provider", ["chat", "responses", "compatible", "anthropic"])
def test_vercels_sdk(said: Any, provider: str) -> None:
    """A text, a stream with usage, a tool that is used, a picture; a refused key, a wait for room."""
    told = said("sdk.mjs")[provider]
    assert told["text"] == told["picture"] == TEXT
    assert told["stream"] == [TEXT, 10]
    assert told["tool"] == ["Rain in Paris", TEXT]
    assert told["refused"]["error"] == ["AI_APICallError", "AI_APICallError"]
    assert (told["refused"]["status"], told["refused"]["retryable"]) == (401, False)
    waited(told["waited"])


def test_vercels_sdk_tells_our_words(said: Any) -> None:
    """Which model is unknown, which budget is used up and until when; and it embeds."""
    told = said("sdk.mjs")
    for provider in ("chat", "responses", "compatible", "anthropic"):
        assert "No valid API key was given" in told[provider]["refused"]["text"]
    assert told["unknown"].items() >= {"status": 404, "retryable": False}.items()
    assert told["unknown"]["text"] == "The model does not exist or this key may not see it."
    assert told["used_up"]["status"] == 429
    assert "The key's hour budget is used up; retry in" in told["used_up"]["text"]
    assert told["embeddings"] == 2
