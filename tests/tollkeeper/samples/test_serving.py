"""The two sample model servers speak their protocols."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.samples import kserve, openai
from tollkeeper.samples.words import embedding, tokens

HELLO = [{"role": "user", "content": "Hello!"}]
Client = TestClient[Any, Any]


def sample(**more: Any) -> openai.OpenAiSettings:
    """Settings of an OpenAI sample with the model ``small``."""
    return openai.OpenAiSettings(listen="127.0.0.1:0", model="small", **more)


@pytest_asyncio.fixture
async def iris() -> AsyncIterator[Client]:
    """A client of the KServe sample."""
    async with TestClient(TestServer(kserve.application(("iris", "other")))) as client:
        yield client


@pytest_asyncio.fixture
async def chat() -> AsyncIterator[Client]:
    """A client of the OpenAI sample."""
    async with TestClient(TestServer(openai.application(sample()))) as client:
        yield client


async def test_kserve_lists_and_shows_its_models(iris: Client) -> None:
    """Readiness is found by asking."""
    assert await (await iris.get("/v1/models")).json() == {"models": ["iris", "other"]}
    assert await (await iris.get("/v1/models/iris")).json() == {"name": "iris", "ready": True}
    assert (await iris.get("/v1/models/none")).status == 404


async def test_kserve_predicts(iris: Client) -> None:
    """Features by name and by place give the logistic model's answer."""
    body = {"instances": [{"feature1": 1.0, "feature2": 2.0}, [1.0, 2.0], []]}
    answer = await (await iris.post("/v1/models/iris:predict", json=body)).json()
    wanted = [round(1 / (1 + math.exp(-score)), 6) for score in (-0.2, -0.2, -0.2)]
    assert answer == {"predictions": wanted}
    assert kserve.predict({"feature1": 1.0}) == pytest.approx(0.645656)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "instances must be a list"),
        (b'{"instances": 1}', "instances must be a list"),
        (b'{"instances": [{"feature9": 1}]}', "unknown feature 'feature9'"),
        (b'{"instances": [["1"]]}', "feature1 must be a number"),
        (b'{"instances": [[true]]}', "feature1 must be a number"),
        (b'{"instances": [[NaN]]}', "feature1 must be a number"),
        (b'{"instances": [[1,1,1,1,1]]}', "at most 4"),
        (b'{"instances": ["x"]}', "an instance is"),
    ],
)
async def test_kserve_refuses_bad_input(iris: Client, body: bytes, message: str) -> None:
    """What is not an instance is a 400 that says why."""
    response = await iris.post("/v1/models/iris:predict", data=body)
    assert response.status == 400
    assert message in (await response.json())["error"]


async def test_openai_lists_and_shows_its_models(chat: Client) -> None:
    """Both forms that clients ask for."""
    listed = await (await chat.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["small"]
    assert (await (await chat.get("/v1/models/small")).json())["object"] == "model"
    missing = await chat.get("/v1/models/none")
    assert (missing.status, (await missing.json())["error"]["code"]) == (404, "model_not_found")


async def test_chat_answers_with_counted_usage(chat: Client) -> None:
    """Usage is the tokenizer's count of prompt and answer, for every choice."""
    body = {"model": "small", "messages": HELLO, "n": 2}
    answer = await (await chat.post("/v1/chat/completions", json=body)).json()
    text = answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == len(tokens("Hello!"))
    assert answer["usage"]["completion_tokens"] == 2 * len(tokens(text))


async def test_chat_stops_at_the_most_tokens(chat: Client) -> None:
    """``max_tokens`` cuts the answer and says so; parts of a message are read too."""
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]
    body = {"model": "tenant-a/small", "messages": parts, "max_tokens": 3}
    answer = await (await chat.post("/v1/chat/completions", json=body)).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_chat_streams_the_same_answer(chat: Client) -> None:
    """The chunks join to the whole answer; usage comes last, only when asked for."""
    body = {"model": "small", "messages": HELLO}
    whole = await (await chat.post("/v1/chat/completions", json=body)).json()
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    events = await _events(await chat.post("/v1/chat/completions", json=asked))
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert (events[-1]["choices"], events[-1]["usage"]) == ([], whole["usage"])
    plain = await _events(await chat.post("/v1/chat/completions", json=body | {"stream": True}))
    assert not any("usage" in event for event in plain)


async def test_completions_whole_and_streamed(chat: Client) -> None:
    """The older endpoint, cut at its default of 16 tokens."""
    body = {"model": "small", "prompt": "one two three four five six seven eight nine ten"}
    whole = await (await chat.post("/v1/completions", json=body)).json()
    assert (whole["usage"]["completion_tokens"], whole["choices"][0]["finish_reason"]) == (16, "length")
    events = await _events(await chat.post("/v1/completions", json=body | {"stream": True}))
    assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]


async def test_embeddings_in_both_formats(chat: Client) -> None:
    """The same unit vector as numbers and as base64 of 32-bit floats."""
    body = {"model": "small", "input": ["Hello!", "Bye"], "dimensions": 8}
    plain = await (await chat.post("/v1/embeddings", json=body)).json()
    vector = plain["data"][0]["embedding"]
    assert math.hypot(*vector) == pytest.approx(1)
    packed = await (await chat.post("/v1/embeddings", json=body | {"encoding_format": "base64"})).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack("<8f", raw) == pytest.approx(vector)
    assert plain["usage"]["prompt_tokens"] == len(tokens("Hello!")) + len(tokens("Bye"))


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "small"}, 400, "messages"),
        ({"model": "small", "messages": []}, 400, "messages"),
        ({"model": "small", "messages": HELLO, "n": 17}, 400, "n"),
        ({"model": "none", "messages": HELLO}, 404, "model"),
    ],
)
async def test_openai_refuses_bad_input(chat: Client, body: Any, status: int, param: str) -> None:
    """A refusal has OpenAI's shape and names the parameter."""
    response = await chat.post("/v1/chat/completions", json=body)
    error = (await response.json())["error"]
    assert (response.status, error["param"], error["type"]) == (status, param, "invalid_request_error")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/embeddings", 405)])
async def test_openai_errors_have_one_shape(chat: Client, method: str, path: str, status: int) -> None:
    """Also what the router refuses."""
    response = await chat.request(method, path)
    assert response.status == status
    assert "message" in (await response.json())["error"]


async def test_a_body_that_is_not_json_or_too_large_is_refused(chat: Client) -> None:
    """Bounded and told in the same shape."""
    assert (await chat.post("/v1/chat/completions", data=b"{")).status == 400
    assert (await chat.post("/v1/chat/completions", data=io.BytesIO(b"x" * (openai.MAX_BODY_BYTES + 1)))).status == 413


@given(st.text())
def test_tokens_join_to_their_text(text: str) -> None:
    """The tokenizer loses nothing."""
    assert "".join(tokens(text)) == text


@given(st.text())
def test_equal_texts_have_equal_embeddings(text: str) -> None:
    """An embedding depends on its text alone and has length one."""
    assert embedding(text, 8) == embedding(text, 8)
    assert math.hypot(*embedding(text, 8)) == pytest.approx(1)


async def _events(response: ClientResponse) -> list[dict[str, Any]]:
    lines = [line for line in (await response.text()).split("\n\n") if line]
    assert response.content_type == "text/event-stream"
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
