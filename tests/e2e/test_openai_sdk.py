"""OpenAI's own client against the whole machine: what works, and which exception each refusal becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from namedserver import named_server
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from openaiground import CHAT, LLM, OTHERS, SHARED, TEAM, Ground, openai_ground
from upmachine import UpMachine

from extauth.records.allowances import PER_MINUTE

HELLO: Any = [{"role": "user", "content": "Hello!"}]
BASES = ("by_body", "by_path")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[Ground]:
    """The models that these tests call."""
    with openai_ground(up) as made:
        yield made


class Wire(httpx2.HTTPTransport):
    """What was sent and answered, as the client's transport saw it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[httpx2.Response] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send on, and remember the answer."""
        answer = super().handle_request(request)
        self.answers.append(answer)
        return answer


Dial = Callable[..., OpenAI]


@pytest.fixture
def dial(ground: Ground) -> Iterator[Dial]:
    """Make clients; each is closed at the end. ``retries`` are the client's own."""
    made = []

    def client(*models: str, base: str = "by_body", key: str = "", retries: int = 0, **limits: int) -> OpenAI:
        made.append(
            OpenAI(
                base_url=getattr(ground, base),
                api_key=key or ground.key(*models, **limits),
                default_headers={"Host": ground.host},
                max_retries=retries,
                http_client=openai.DefaultHttpxClient(transport=Wire()),
            )
        )
        return made[-1]

    yield client
    for one in made:
        one.close()


def wire(client: OpenAI) -> list[httpx2.Response]:
    """What this client was answered, retries included."""
    transport = client._client._transport
    assert isinstance(transport, Wire)
    return transport.answers


@pytest.mark.parametrize("base", BASES)
def test_chat_completions_embeddings_and_responses(dial: Dial, base: str) -> None:
    """Each call of the client is answered, by the host's path and by the model's own."""
    client = dial(base=base)
    chat = client.chat.completions.create(model=LLM, messages=HELLO)
    assert chat.choices[0].message.content
    assert chat.usage
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    assert client.completions.create(model=LLM, prompt="Once").choices[0].text
    assert client.embeddings.create(model=LLM, input=["one", "two"]).data[1].embedding
    response = client.responses.create(model=LLM, input="Hello!")
    assert response.output_text
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


@pytest.mark.parametrize("base", BASES)
def test_streams(dial: Dial, base: str) -> None:
    """Chunks come one by one, the usage last where it was asked for."""
    asked: Any = {"model": LLM, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    with dial(base=base).chat.completions.create(**asked) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > 3
    assert [bool(chunk.usage) for chunk in chunks[-2:]] == [False, True]


@pytest.mark.parametrize("base", BASES)
def test_a_streamed_response(dial: Dial, base: str) -> None:
    """Events come by name; the last one holds the usage."""
    with dial(base=base).responses.create(model=LLM, input="Hello!", stream=True) as stream:
        events = list(stream)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage
    assert last.response.usage.total_tokens > 0


@pytest.mark.parametrize("base", BASES)
async def test_the_async_client(ground: Ground, base: str) -> None:
    """The same without threads: a call, a stream, the list of models."""
    headers = {"Host": ground.host}
    async with AsyncOpenAI(base_url=getattr(ground, base), api_key=ground.key(), default_headers=headers) as client:
        chat = await client.chat.completions.create(model=LLM, messages=HELLO)
        assert chat.choices[0].message.content
        stream = await client.chat.completions.create(model=LLM, messages=HELLO, stream=True)
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason
        assert [model.id async for model in client.models.list()] == [LLM]
        assert (await client.models.retrieve(LLM)).id == LLM
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nothing")


def test_models_are_those_that_this_key_may_call(dial: Dial) -> None:
    """Own ones by name, shared ones as tenant/name: each listed name is one that a body may give."""
    client = dial(LLM, SHARED)
    listed = list(client.models.list())
    assert [(model.id, model.owned_by, model.object) for model in listed] == [
        (LLM, "sdk-team", "model"),
        (SHARED, OTHERS, "model"),
    ]
    assert all(time.time() - 3_600 < model.created <= time.time() + 60 for model in listed)
    assert client.models.retrieve(LLM) == listed[0]
    for model in listed:
        answer = client.chat.completions.create(model=model.id, messages=HELLO)
        assert answer.model == LLM  # both servers' word, who know no tenant
    assert [model.id for model in dial(CHAT).models.list()] == [CHAT]


def test_a_models_own_path_lists_that_model(dial: Dial) -> None:
    """With a publication's path as base URL there is one model, although its server knows more."""
    client = dial(LLM, CHAT, base="by_path")
    assert [model.id for model in client.models.list()] == [LLM]
    assert client.models.retrieve(LLM).owned_by == "sdk-team"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(CHAT)


def test_a_slash_that_the_client_encodes_is_refused(dial: Dial) -> None:
    """``retrieve("tenant/name")`` sends %2F, which no path may hold here; the list has the model."""
    with pytest.raises(openai.BadRequestError) as refused:
        dial(SHARED).models.retrieve(SHARED)
    assert refused.value.code == "malformed_request"


def test_headers_of_a_raw_answer(dial: Dial) -> None:
    """The budgets under OpenAI's names, and the request's id; a list is no call, so it says nothing of these."""
    client = dial(requestsPerMinute=50)
    for left, answer in enumerate(
        (
            client.chat.completions.with_raw_response.create(model=LLM, messages=HELLO),
            client.chat.completions.with_raw_response.create(model=LLM, messages=HELLO, stream=True),
        ),
        start=1,
    ):
        headers = answer.headers
        assert headers["x-ratelimit-limit-requests"] == "50"
        assert headers["x-ratelimit-remaining-requests"] == str(50 - left)
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert answer.request_id == headers["x-request-id"]
        answer.http_response.close()
    listed = client.models.with_raw_response.list()
    assert "x-ratelimit-remaining-requests" not in listed.headers
    assert listed.headers["ratelimit"].startswith('"model-list-minute";r=59;')
    assert listed.request_id == listed.headers["x-request-id"]
    assert client.chat.completions.create(model=LLM, messages=HELLO)._request_id


def test_each_refusal_is_its_exception(dial: Dial, ground: Ground) -> None:
    """401, 403, 404, 400 and 429 as OpenAI's client knows them, with code, param and the request's id."""
    nobody = dial(key="tk_nonsense")
    small = dial(requestsPerHour=1)
    small.chat.completions.create(model=LLM, messages=HELLO)
    small.models.list()
    rows: list[tuple[OpenAI, Any, type[openai.APIStatusError], str, str | None]] = [
        (nobody, LLM, openai.AuthenticationError, "invalid_api_key", None),
        (dial(LLM), CHAT, openai.PermissionDeniedError, "model_not_allowed", "model"),
        (dial(LLM), "nothing", openai.NotFoundError, "model_not_found", "model"),
        (dial(LLM), f"{OTHERS}/{CHAT}", openai.NotFoundError, "model_not_found", "model"),
        (dial(LLM), 7, openai.BadRequestError, "invalid_model", "model"),
        (small, LLM, openai.RateLimitError, "rate_limit_exceeded", None),
    ]
    for client, model, kind, code, param in rows:
        with pytest.raises(kind) as refused:
            client.chat.completions.create(model=model, messages=HELLO)
        error = refused.value
        assert (type(error), error.code, error.param) == (kind, code, param)
        assert error.request_id
        assert error.type
        if kind in {openai.AuthenticationError, openai.PermissionDeniedError}:
            with pytest.raises(kind):
                client.models.retrieve(model)
    with pytest.raises(openai.AuthenticationError):
        nobody.models.list()
    assert ground.machine.process.poll() is None


def test_the_list_is_polled_and_the_chat_goes_on(dial: Dial) -> None:
    """Sixty questions a minute beside two calls; what has not changed is 304, without a body."""
    client = dial(LLM, requestsPerMinute=2)
    tag = client.models.with_raw_response.list().headers["etag"]
    for _ in range(PER_MINUTE - 1):
        with pytest.raises(openai.APIStatusError) as same:
            client.models.list(extra_headers={"If-None-Match": tag})
        assert (same.value.status_code, same.value.response.content) == (304, b"")
        assert same.value.response.headers["etag"] == tag
    with pytest.raises(openai.RateLimitError) as refused:
        client.models.list()
    assert 0 < int(refused.value.response.headers["retry-after"]) <= PER_MINUTE + 1
    for _ in range(2):
        client.chat.completions.create(model=LLM, messages=HELLO)
    with pytest.raises(openai.RateLimitError, match="The key's minute budget is used up"):
        client.chat.completions.create(model=LLM, messages=HELLO)


def test_a_broken_client_is_told_so_and_its_good_calls_go_on(dial: Dial) -> None:
    """Sixty times what is wrong, then that there were too many; the client does not try those again by itself."""
    client = dial(LLM, requestsPerMinute=2, retries=2)
    for _ in range(PER_MINUTE):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nothing", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="nothing", messages=HELLO)
    assert refused.value.code == "too_many_errors"
    assert len(wire(client)) == PER_MINUTE + 1
    for _ in range(2):
        client.chat.completions.create(model=LLM, messages=HELLO)


def test_a_model_that_is_gone_is_a_servers_fault(dial: Dial, ground: Ground) -> None:
    """Envoy's 503 is an error of OpenAI's shape too; the client asks again before it raises."""
    with ground.dying_model() as name:
        client = dial(name, retries=1)
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model=name, messages=HELLO)
    assert (failed.value.status_code, failed.value.code) == (503, "upstream_unavailable")
    assert [one.status_code for one in wire(client)] == [503, 503]


def test_the_clients_retry_waits_as_long_as_told(dial: Dial) -> None:
    """A second later there is room: the client waits what retry-after-ms says, tries again and is served."""
    client = dial(retries=2, burstLimit=1)
    client.chat.completions.create(model=LLM, messages=HELLO)
    begun_s = time.monotonic()
    answer = client.chat.completions.with_raw_response.create(model=LLM, messages=HELLO)
    spent_s = time.monotonic() - begun_s
    refused = [one for one in wire(client) if one.status_code == 429]
    if refused:  # else the first call took so long that its second is over
        assert answer.retries_taken == len(refused) == 1
        assert int(refused[0].headers["retry-after-ms"]) / 1000 <= spent_s
        assert "x-should-retry" not in refused[0].headers
    assert answer.parse().choices


def test_the_client_gives_up_when_told(dial: Dial) -> None:
    """Where the wait is long, one answer says so and the client does not ask again."""
    client = dial(retries=5, requestsPerHour=1)
    client.chat.completions.create(model=LLM, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model=LLM, messages=HELLO)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert int(refused.value.response.headers["retry-after-ms"]) > 60_000
    assert [one.status_code for one in wire(client)] == [200, 429]


def test_what_can_never_fit_is_not_tried_again(dial: Dial) -> None:
    """A call that asks for more tokens than its budget can hold is a bad request; with fewer it is served."""
    client = dial(retries=5, tokensPerHour=1_000)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LLM, messages=HELLO, max_tokens=5_000)
    assert refused.value.code == "exceeds_limit"
    assert refused.value.response.headers["x-should-retry"] == "false"
    answer = client.chat.completions.with_raw_response.create(model=LLM, messages=HELLO, max_tokens=20)
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 1_000
    assert [one.status_code for one in wire(client)] == [400, 200]


BODIES: dict[str, tuple[bytes, str, int, str]] = {
    "broken": (b'{"model": ', "application/json", 400, "invalid_json"),
    "empty": (b"", "application/json", 400, "invalid_json"),
    "a text": (b'"my-llm"', "application/json", 400, "invalid_json"),
    "null": (b"null", "application/json", 400, "invalid_json"),
    "more than one": (b'{"model": "my-llm"} {}', "application/json", 400, "invalid_json"),
    "utf-16": (
        '{"model": "my-llm"}'.encode("utf-16"),
        "application/json; charset=utf-16",
        415,
        "unsupported_media_type",
    ),
    "an array": (b'[{"model": "my-llm"}]', "application/json", 400, "invalid_json"),
    "no text for a model": (b'{"model": ["my-llm"]}', "application/json", 400, "invalid_model"),
    "a model twice": (b'{"model": "my-llm", "model": "my-llm"}', "application/json", 400, "repeated_field"),
    "a model in two cases": (b'{"model": "my-llm", "Model": "x"}', "application/json", 400, "misspelt_field"),
    "a count that is a text": (
        b'{"model": "my-llm", "max_tokens": "5"}',
        "application/json",
        400,
        "invalid_max_tokens",
    ),
    "plain text": (b'{"model": "my-llm"}', "text/plain", 415, "unsupported_media_type"),
    "no type": (b'{"model": "my-llm"}', "", 415, "unsupported_media_type"),
    "a form": (b"model=my-llm", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_meant_is_told_in_openais_shape(ground: Ground, base: str, name: str) -> None:
    """No model server is asked, and nothing is charged but the gate's look."""
    body, content_type, status, code = BODIES[name]
    headers = ground.headers | ({"Content-Type": content_type} if content_type else {})
    url = f"{getattr(ground, base)}/chat/completions"
    answer = httpx2.post(url, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert {"message", "param"} <= error.keys()


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON ;charset=UTF-8"])
def test_a_charset_is_no_obstacle(ground: Ground, content_type: str) -> None:
    """Clients that name the charset are served."""
    headers = ground.headers | {"Content-Type": content_type}
    body = b'{"model": "my-llm", "messages": [{"role": "user", "content": "Hi"}]}'
    assert httpx2.post(f"{ground.by_body}/chat/completions", content=body, headers=headers).status_code == 200


def test_azures_client_finds_a_deployment_on_the_host_of_all(ground: Ground) -> None:
    """Published where it looks for one, nobody needs a host of their own; by its endpoint, and by a base URL."""
    name, path = "gpt-4o-mini", "/openai/deployments/gpt-4o-mini"
    made: Any = {"api_version": "2024-10-21", "default_headers": {"Host": ground.host}, "max_retries": 0}
    with named_server(name) as server:
        ground.publish(TEAM, name, server.url, path)
        key = ground.key(name)
        for where in (
            {"azure_endpoint": ground.gateway, "azure_deployment": name},
            {"base_url": ground.gateway + path},
        ):
            with AzureOpenAI(**where, **made, api_key=key) as client:
                answer = client.chat.completions.create(model=name, messages=HELLO)
                assert (answer.choices[0].message.content, answer.model) == ("heard", name)
                with client.chat.completions.create(model=name, messages=HELLO, stream=True) as stream:
                    assert [chunk.model for chunk in stream] == [name, name]
                with pytest.raises(openai.NotFoundError):
                    client.chat.completions.create(model="another", messages=HELLO)
        assert {one.path for one in server.heard} == {"/v1/chat/completions?api-version=2024-10-21"}
        assert not any(key in json.dumps(one.headers) for one in server.heard)
