"""Ollama's client, LiteLLM and LangChain, as people install them, through a real Envoy to servers of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from clients import client_family
from dialects import SAID, TEXT, WORDS
from upmachine import UpMachine

from tests.e2e.clientground import LLAMA, QWEN, ClientGround, client_ground

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WAIT_S = 0.6
"""Of a second's wait; the rest may have gone by between two calls."""


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[ClientGround]:
    """The servers, published."""
    client_family("python")
    with client_ground(up, "python-clients") as made:
        yield made


@pytest.fixture(scope="module")
def said(ground: ClientGround) -> Any:
    """What a script's steps said; each script is run once."""

    @cache
    def run(script: str) -> Any:
        return client_family("python").run(script, timeout_s=100, **ground.variables)

    return run


def met(told: Any, kind: str, status: int, *words: str) -> None:
    """A step met this error, by which a caller can catch it."""
    assert kind in told["error"], told
    assert told["status"] == status
    assert all(word in told["text"] for word in words), told


def waited(told: Any) -> None:
    """A call that came too early was answered all the same, tried again once: when there was room, and not before."""
    text, spent_s, answered = told
    assert (text, answered) == (TEXT, [429, 200])
    assert spent_s > WAIT_S


def test_ollamas_client_at_its_own_api(said: Any) -> None:
    """Published as it is: chats, texts, pictures, streams of lines, tools, what the server lists and shows."""
    told = said("ollama_client.py")
    assert told["chat"] == told["generate"] == told["picture"] == TEXT
    assert told["stream"] == told["generate_stream"] == [*WORDS, ""]
    assert told["counted"] == SAID
    assert told["by_async"] == [TEXT, [*WORDS, ""]]
    assert told["tool"] == ["weather", {"city": "Paris"}]
    assert told["models"] == [LLAMA]
    assert told["shown"] == ["completion", "tools"]


def test_ollamas_client_is_refused(said: Any) -> None:
    """By its one exception, which has the status and our words; the 404 is the server's."""
    told = said("ollama_client.py")
    met(told["refused"], "ResponseError", 401, "No valid API key was given")
    met(told["used_up"], "ResponseError", 429, "The key's hour budget is used up; retry in")
    met(told["unknown"], "ResponseError", 404, "model 'nothing' not found")


def test_litellm(said: Any) -> None:
    """Chats, streams, pictures, tools, responses, embeddings and lists, also of Anthropic's dialect."""
    told = said("litellm_client.py")
    for name in ("chat", "another", "picture", "response", "anthropic"):
        assert told[name] == TEXT, name
    assert told["stream"] == [TEXT, 10]
    assert told["by_async"] == [TEXT, TEXT]
    assert told["tool"] == ["weather", '{"city": "Paris"}']
    assert told["embedding"] == 2
    assert {LLAMA, QWEN} <= {*told["models"]}


def test_litellm_is_refused(said: Any) -> None:
    """Each refusal is its exception; what is worth a second's wait is waited for, either way."""
    told = said("litellm_client.py")
    met(told["refused"], "AuthenticationError", 401, "No valid API key was given")
    met(told["unknown"], "NotFoundError", 404, "The model does not exist or this key may not see it")
    met(told["bad"], "BadRequestError", 400, "'max_tokens' must be a whole number")
    met(told["too_large"], "BadRequestError", 400, "it never fits; ask for fewer by 'max_tokens'")
    met(told["used_up"], "RateLimitError", 429, "The key's hour budget is used up; retry in")
    waited(told["waited"])
    waited(told["waited_by_itself"])


@pytest.mark.parametrize("dialect", ["", "response_", "anthropic_"])
def test_langchain(said: Any, dialect: str) -> None:
    """A chat, a stream and a tool that is used, in each of the dialects of its chat models."""
    told = said("langchain_client.py")
    assert told[dialect.rstrip("_") or "chat"] == TEXT
    stream = told[f"{dialect}stream"]
    assert (stream[0] if isinstance(stream, list) else stream) == TEXT
    assert told[f"{dialect}tool"] == ["Rain in Paris", TEXT]


def test_langchain_has_more(said: Any) -> None:
    """Usage of a stream, calls without threads and many at once, pictures, embeddings, Azure's client."""
    told = said("langchain_client.py")
    assert told["stream"] == [TEXT, 10]
    assert told["by_async"] == [TEXT, TEXT]
    assert told["batch"] == [TEXT] * 3
    assert told["another"] == told["picture"] == told["anthropic_picture"] == told["azure"] == TEXT
    assert told["embedding"] == 2


def test_langchain_is_refused(said: Any) -> None:
    """Each refusal is its exception, LangChain's own too; what is worth a second's wait is waited for."""
    told = said("langchain_client.py")
    met(told["refused"], "ModelAuthenticationError", 401, "No valid API key was given")
    met(told["anthropic_refused"], "ModelAuthenticationError", 401, "No valid API key was given")
    met(told["unknown"], "ModelNotFoundError", 404, "The model does not exist or this key may not see it")
    met(told["too_large"], "ModelInvalidRequestError", 400, "it never fits; ask for fewer by 'max_tokens'")
    met(told["used_up"], "ModelRateLimitError", 429, "The key's hour budget is used up; retry in")
    waited(told["waited"])
    waited(told["anthropic_waited"])


def test_no_server_sees_a_key_of_ours(said: Any, ground: ClientGround) -> None:
    """Whatever client sent it, by whatever header; the vLLM has its own key with each call."""
    for script in ("ollama_client.py", "litellm_client.py", "langchain_client.py"):
        said(script)
    assert not any(
        "tk_" in value
        for server in (ground.ollama, ground.vllm)
        for one in server.heard
        for value in one.headers.values()
    )
    assert {one.headers["authorization"] for one in ground.vllm.heard if one.method == "POST"} == {
        f"Bearer {ground.vllm.key}"
    }
