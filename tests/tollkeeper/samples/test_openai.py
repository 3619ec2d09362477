"""The OpenAI sample: its Responses API, its context, and every way in which it can be told to misbehave."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai as sdk
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from admin.models.contexts import of_card, of_list
from tollkeeper.samples import openai
from tollkeeper.samples.generating import ContextExceededError, Generated
from tollkeeper.samples.misbehaviour import HEADER, misbehaviour_of
from tollkeeper.samples.words import reply, tokens

CHAT = {"model": "small", "messages": [{"role": "user", "content": "Hello there, you small model!"}]}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
RESPONSE = {"model": "small", "input": "Hello there, you small model!"}
Client = TestClient[Any, Any]


def application(**more: Any) -> Any:
    """The sample with the model ``small``."""
    return openai.application(openai.OpenAiSettings(listen="127.0.0.1:0", model="small", **more))


@pytest_asyncio.fixture
async def model() -> AsyncIterator[Client]:
    """A client of a sample that obeys its callers."""
    async with TestClient(TestServer(application(obey_callers=True)), auto_decompress=False) as client:
        yield client


async def chat(model: Client, told: str = "", **body: Any) -> aiohttp.ClientResponse:
    """Ask for a chat's answer, with this word to the sample."""
    return await model.post("/v1/chat/completions", json=CHAT | body, headers={HEADER: told} if told else {})


def events_of(text: str) -> list[Any]:
    """The JSON of each event of a stream."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_a_response_tells_its_usage(model: Client) -> None:
    """Text, status and usage as the tokenizer counts them; instructions are part of the prompt."""
    answer = await (await model.post("/v1/responses", json=RESPONSE | {"instructions": "Be kind."})).json()
    text = answer["output"][0]["content"][0]["text"]
    prompt = f"Be kind.\n{RESPONSE['input']}"
    assert (answer["object"], answer["status"], text) == ("response", "completed", reply(prompt))
    asked, made = len(tokens(prompt)), len(tokens(text))
    usage = {name: value for name, value in answer["usage"].items() if isinstance(value, int)}
    assert usage == {"input_tokens": asked, "output_tokens": made, "total_tokens": asked + made}


async def test_a_cut_response_is_incomplete(model: Client) -> None:
    """``max_output_tokens`` cuts the answer, and the response says why; items of input are read too."""
    items = [{"role": "user", "content": [{"type": "input_text", "text": RESPONSE["input"]}]}]
    body = {"model": "small", "input": items, "max_output_tokens": 3}
    answer = await (await model.post("/v1/responses", json=body)).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["usage"]["output_tokens"] == 3


async def test_a_streamed_response_ends_with_the_finished_one(model: Client) -> None:
    """Events are numbered and named as their type; deltas join to the text; the last event carries the usage."""
    whole = await (await model.post("/v1/responses", json=RESPONSE)).json()
    answer = await model.post("/v1/responses", json=RESPONSE | {"stream": True})
    text = await answer.text()
    events = events_of(text)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    assert [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")] == [
        event["type"] for event in events
    ]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == whole["output"][0]["content"][0]["text"]
    assert (events[0]["type"], events[0]["response"]["usage"]) == ("response.created", None)
    assert (events[-1]["type"], events[-1]["response"]) == ("response.completed", whole)


async def test_the_official_client_reads_it() -> None:
    """OpenAI's own client understands every call, whole and streamed, its usage included."""
    async with (
        TestServer(application()) as server,
        sdk.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="none", max_retries=0) as client,
    ):
        whole = await client.responses.create(model="small", input="Hello")
        assert whole.usage is not None
        assert whole.output_text == reply("Hello")
        async with client.responses.stream(model="small", input="Hello") as stream:
            assert (await stream.get_final_response()).usage == whole.usage
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="small",
                messages=[{"role": "user", "content": "Hello"}],
                max_completion_tokens=4,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "a " * 30}]}),
        ("completions", {"prompt": "a " * 30}),
        ("responses", {"input": "a " * 30}),
        ("embeddings", {"input": ["a " * 20, "a " * 20]}),
    ],
)
async def test_what_is_above_the_context_is_refused(path: str, body: Any) -> None:
    """A prompt that the model cannot hold is a 400 of OpenAI's code."""
    async with TestClient(TestServer(application(context_tokens=29))) as model:
        answer = await model.post(f"/v1/{path}", json={"model": "small", **body})
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "context_length_exceeded")


async def test_the_list_tells_the_context() -> None:
    """As vLLM's does, so that a publication of the sample takes it over."""
    async with TestClient(TestServer(application(context_tokens=29))) as model:
        listed = await (await model.get("/v1/models")).json()
        assert of_list("small", listed["data"]) == of_card(await (await model.get("/v1/models/small")).json()) == 29


@given(prompt=st.text(), most=st.none() | st.integers(1, 50), context=st.integers(1, 200))
def test_no_answer_leaves_the_context(prompt: str, most: int | None, context: int) -> None:
    """Prompt and answer together fit the context, whatever is asked for."""
    try:
        answer = Generated.to(prompt, most, context)
    except ContextExceededError:
        assert len(tokens(prompt)) > context
        return
    assert len(tokens(prompt)) + len(answer.pieces) <= context
    assert most is None or len(answer.pieces) <= most


@given(st.text())
def test_a_token_is_at_least_a_byte(text: str) -> None:
    """No text has more tokens than bytes in a request: what a caller is held to before the model has counted."""
    assert len(tokens(text)) <= len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))


async def test_the_sample_does_not_count_as_the_gateway_guesses(model: Client) -> None:
    """Its tokens are no function of the number of bytes, which is all that the gateway's estimate knows."""
    counts = set()
    for text in ("a b c d e f g h ", "abcdefghijklmnop", "................"):
        answer = await chat(model, messages=[{"role": "user", "content": text}])
        counts.add((await answer.json())["usage"]["prompt_tokens"])
    assert len(counts) == 3


REAL = {"prompt_tokens": 7, "completion_tokens": 18, "total_tokens": 25}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ("usage=1000000", {"prompt_tokens": 500_000, "completion_tokens": 500_000, "total_tokens": 1_000_000}),
        ("usage=1", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 1}),
        ("usage=-4", {"prompt_tokens": -2, "completion_tokens": -2, "total_tokens": -4}),
        ("usage=null", None),
        ("usage=string", {name: str(count) for name, count in REAL.items()}),
        ("usage=float", {name: count + 0.5 for name, count in REAL.items()}),
        ("usage=parts", {name: count for name, count in REAL.items() if name != "total_tokens"}),
        ("", REAL),
    ],
)
async def test_it_lies_as_told(model: Client, told: str, usage: Any) -> None:
    """Each lie about usage, the same in a whole answer and in a stream."""
    assert (await (await chat(model, told)).json())["usage"] == usage
    assert events_of(await (await chat(model, told, **STREAM)).text())[-1]["usage"] == usage


async def test_usage_can_be_left_out(model: Client) -> None:
    """Of a whole answer, of a stream and of a response, which then has no such field."""
    assert "usage" not in await (await chat(model, "usage=missing")).json()
    assert not [e for e in events_of(await (await chat(model, "usage=missing", **STREAM)).text()) if e.get("usage")]
    headers = {HEADER: "usage=missing"}
    answer = await model.post("/v1/responses", json=RESPONSE | {"stream": True}, headers=headers)
    assert "usage" not in events_of(await answer.text())[-1]["response"]


async def test_usage_can_come_early(model: Client) -> None:
    """The last but one event has the usage, and none is lost."""
    events = events_of(await (await chat(model, "usage-early=yes", **STREAM)).text())
    honest = events_of(await (await chat(model, **STREAM)).text())
    assert events == [*honest[:-2], honest[-1], honest[-2]]
    assert events[-2]["usage"] == REAL


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_it_fails_as_told(model: Client, status: int) -> None:
    """An error in OpenAI's shape, instead of an answer."""
    answer = await chat(model, f"status={status}")
    assert (answer.status, "message" in (await answer.json())["error"]) == (status, True)


@pytest.mark.parametrize("body", [{}, STREAM], ids=["whole", "streamed"])
@pytest.mark.parametrize("told", ["break-after=0", "break-after=3"])
async def test_it_breaks_off_as_told(model: Client, told: str, body: Any) -> None:
    """The connection ends before the first header, or in the middle of the answer."""
    with pytest.raises(aiohttp.ClientError):
        await (await chat(model, told, **body)).read()


async def test_it_is_slow_as_told(model: Client) -> None:
    """Each event waits its turn, so that a caller can leave in the middle; before the first header, if so told."""
    began_s = time.monotonic()
    answer = await chat(model, "delay-ms=30,wait-ms=100", max_tokens=3, **STREAM)
    headers_s = time.monotonic() - began_s
    events = events_of(await answer.text())
    assert headers_s >= 0.09
    assert time.monotonic() - began_s - headers_s >= 0.025 * (len(events) - 1)


@pytest.mark.parametrize("body", [{}, STREAM], ids=["whole", "streamed"])
async def test_it_compresses_as_told(model: Client, body: Any) -> None:
    """Whatever the caller said that it can read."""
    plain, packed = await chat(model, **body), await chat(model, "gzip=yes", **body)
    assert (packed.headers["Content-Encoding"], "Content-Encoding" in plain.headers) == ("gzip", False)
    assert json.dumps(gzip.decompress(await packed.read()).decode()) == json.dumps(await plain.text())


async def test_an_unknown_word_is_named(model: Client) -> None:
    """A word that means nothing is a 400 that names it, so that no test believes it was heard."""
    answer = await chat(model, "usage=-5,delay=3")
    assert (answer.status, "delay" in (await answer.json())["error"]["message"]) == (400, True)
    with pytest.raises(ValueError, match="status"):
        misbehaviour_of(["status=200"])


async def test_callers_are_not_obeyed_unless_allowed() -> None:
    """Unless started so, the header means nothing; what the process was told holds for every call."""
    async with TestClient(TestServer(application())) as model:
        assert (await (await chat(model, "usage=1")).json())["usage"] == REAL
    async with TestClient(TestServer(application(misbehave="usage=7"))) as model:
        assert (await (await chat(model)).json())["usage"]["total_tokens"] == 7


def test_a_bad_option_is_refused_at_the_start() -> None:
    """The process says what it did not understand, and does not run."""
    command = [sys.executable, "-m", "tollkeeper.samples.openai", "--listen", "127.0.0.1:0", "--model", "small"]
    done = subprocess.run(
        [*command, "--misbehave", "usage=lots"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "--misbehave" in done.stderr
