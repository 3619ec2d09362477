"""Models by their servers' names and by aliases: OpenAI's client through a real Envoy to a server that knows few."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from namedserver import NamedServer, named_server
from openai import OpenAI
from openaiground import CHAT, OTHERS, TEAM, Ground, openai_ground
from upmachine import UpMachine, until

HELLO: Any = [{"role": "user", "content": "Hello!"}]
SERVED = "llama3.1:8b"
LONG = "模型/" + "é" * 253
ALIASES = (
    "gpt-4o",
    "meta-llama/Llama-3.1-8B-Instruct",
    'quo"ted\\',
    LONG,
    f"{OTHERS}/my-llm",
    *(":latest:", "/a//b/", "..", "%2F", "a name", "null"),  # each is text and nothing else
)
MAX_BODY = 4 * 1024 * 1024

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server() -> Iterator[NamedServer]:
    """It knows ``llama3.1:8b``, and a neighbour that is somebody else's."""
    with named_server(SERVED, "gpt-4o") as made:
        yield made


@pytest.fixture(scope="module")
def ground(up: UpMachine, server: NamedServer) -> Iterator[Ground]:
    """``sdk-team``'s llama is the server's ``llama3.1:8b``; ``sdk-others`` may call it too."""
    with openai_ground(up) as made:
        made.publish_named(TEAM, "llama", server.url, SERVED, ALIASES, allowedTenants=[OTHERS])
        yield made


@pytest.fixture
def client(ground: Ground) -> Iterator[OpenAI]:
    """OpenAI's, by the body's model."""
    with dial(ground, ground.key("llama", f"{OTHERS}/my-llm")) as made:
        yield made


def dial(ground: Ground, key: str, base: str = "") -> OpenAI:
    """A client of the shared URL, or of another."""
    headers = {"Host": ground.host}
    return OpenAI(base_url=base or ground.by_body, api_key=key, default_headers=headers, max_retries=0)


@pytest.mark.parametrize("said", ["llama", SERVED, *ALIASES, f"{TEAM}/llama", f"{TEAM}/{SERVED}"])
def test_whatever_callers_say_the_server_hears_its_own_name(client: OpenAI, server: NamedServer, said: str) -> None:
    """By name, modelId and alias; the answer's model is the server's word. Nothing else of the body is touched."""
    answer = client.chat.completions.create(model=said, messages=HELLO, user="é")
    assert answer.model == SERVED
    assert json.loads(server.last.body) == {"messages": HELLO, "model": SERVED, "user": "é"}
    assert int(server.last.headers["content-length"]) == len(server.last.body)


def test_every_listed_name_can_be_called_and_retrieved(client: OpenAI) -> None:
    """An alias that is written as another tenant's model means one's own, in the list as in a call."""
    listed = [one.id for one in client.models.list()]
    assert listed == ["llama", SERVED, *ALIASES]
    for name in listed:
        assert client.chat.completions.create(model=name, messages=HELLO).choices
    assert client.models.retrieve(SERVED).id == SERVED


def test_another_tenant_says_whose_it_is(ground: Ground, server: NamedServer) -> None:
    """Each name with the tenant before it; none without."""
    key = ground.key(f"{TEAM}/llama", tenant=OTHERS)
    with dial(ground, key) as client:
        for said in ("llama", SERVED, "gpt-4o", LONG):
            assert client.chat.completions.create(model=f"{TEAM}/{said}", messages=HELLO).model == SERVED
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model=said, messages=HELLO)
        assert f"{TEAM}/{SERVED}" in [one.id for one in client.models.list()]
    assert server.last.model == SERVED


def test_a_model_of_one_name_and_one_tenant_hears_it_too(ground: Ground) -> None:
    """Whoever puts the own tenant before it, though nothing of the publication told that anybody would."""
    with dial(ground, ground.key(CHAT)) as client:
        assert client.chat.completions.create(model=f"{TEAM}/{CHAT}", messages=HELLO).model == CHAT


def test_on_its_own_url_it_goes_by_its_names_alone(ground: Ground, server: NamedServer) -> None:
    """An alias is rewritten there too; a name of none is 404."""
    with dial(ground, ground.key("llama"), f"{ground.gateway}/v1/models/sdk-llama") as client:
        assert client.chat.completions.create(model="gpt-4o", messages=HELLO).model == SERVED
        assert [one.id for one in client.models.list()] == ["llama", SERVED, *ALIASES]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="another", messages=HELLO)
    assert server.last.model == SERVED


@pytest.mark.parametrize("said", [{"model": None}, {"model": ""}, {}])
@pytest.mark.parametrize("endpoint", ["chat/completions", "embeddings", "tokenize"])
def test_on_its_own_url_the_path_names_the_model_to_the_server_too(
    ground: Ground, server: NamedServer, endpoint: str, said: dict[str, Any]
) -> None:
    """Where a body says none, as LangChain's client for Azure: the server has other models, and no path to go by."""
    url = f"{ground.gateway}/v1/models/sdk-llama/{endpoint}"
    for _ in range(2):  # as it is decided first, and by what was kept of that
        answer = httpx2.post(url, json={**said, "messages": HELLO}, headers=ground_headers(ground))
        assert answer.json()["model"] == SERVED
        assert json.loads(server.last.body) == {"model": SERVED, "messages": HELLO}
        assert int(server.last.headers["content-length"]) == len(server.last.body)


def test_streams_tell_their_usage_as_before(client: OpenAI) -> None:
    """What reads an answer still does on routes that rewrite."""
    before = client.chat.completions.with_raw_response.create(model="llama", messages=HELLO)
    assert before.headers["x-ratelimit-remaining-tokens"]
    with client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert [chunk.model for chunk in chunks] == [SERVED] * 2


def _raw(ground: Ground, content: Any, **headers: str) -> httpx2.Response:
    headers = {**ground_headers(ground), "Content-Type": "application/json", **headers}
    return httpx2.post(f"{ground.by_body}/chat/completions", content=content, headers=headers, timeout=30)


_keys: dict[int, str] = {}


def ground_headers(ground: Ground) -> dict[str, str]:
    """Of a key for llama."""
    if id(ground) not in _keys:
        _keys[id(ground)] = ground.key("llama")
    return {"Host": ground.host, "X-API-Key": _keys[id(ground)]}


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (rb'{"model":"llama3.1\u003a8b"}', rb'{"model":"llama3.1\u003a8b"}'),
        (rb'{"model":"gpt-4\u006f", "a": "\u00e9"}', b'{"model":"llama3.1:8b", "a": "\\u00e9"}'),
        (rb'{"mod\u0065l" : "gpt-4o"}', rb'{"mod\u0065l" : "llama3.1:8b"}'),
        (b'\xef\xbb\xbf { "x": {"model": "gpt-4o"}, "model"\n:\t"gpt-4o" }', b'"model"\n:\t"llama3.1:8b" }'),
        (b'{"x":1,"x":2,"y":"\\"model\\":\\"a\\"","model":"gpt-4o"}', b',"model":"llama3.1:8b"}'),
        (
            b'{"x":NaN,"t":"\xc3\xa9\xf0\x9f\x98\x80","model":"gpt-4o"}',
            b'"\xc3\xa9\xf0\x9f\x98\x80","model":"llama3.1:8b"}',
        ),
        (json.dumps({"model": 'quo"ted\\'}).encode(), b'{"model": "llama3.1:8b"}'),
    ],
)
def test_the_place_is_found_however_the_body_is_written(
    ground: Ground, server: NamedServer, sent: bytes, heard: bytes
) -> None:
    """With escapes, nested namesakes, doubled names that decide nothing, a mark before it, what is not quite JSON."""
    assert _raw(ground, sent).status_code == 200
    assert server.last.body.endswith(heard)
    assert int(server.last.headers["content-length"]) == len(server.last.body)


def test_a_packed_body_is_rewritten_as_it_is_unpacked(ground: Ground, server: NamedServer) -> None:
    """The place is that in the text which Envoy has unpacked."""
    text = b'{"messages": [], "model": "gpt-4o"}'
    assert _raw(ground, gzip.compress(text), **{"Content-Encoding": "gzip"}).status_code == 200
    assert server.last.body == b'{"messages": [], "model": "llama3.1:8b"}'


def test_a_model_twice_is_refused_as_before(ground: Ground, server: NamedServer) -> None:
    """No rule of ours chooses between two names."""
    count = len(server.heard)
    answer = _raw(ground, b'{"model":"gpt-4o","model":"llama"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "repeated_field")
    assert len(server.heard) == count


def test_a_body_that_tells_no_length_is_rewritten(ground: Ground, server: NamedServer) -> None:
    """Chunks reach the server as one body of a stated length, or in chunks again; the text is whole."""
    pieces = [b'{"messages": [', b'], "mo', b'del": "gpt', b'-4o"', b', "n": 1}']
    assert _raw(ground, iter(pieces)).status_code == 200
    assert server.last.body == b'{"messages": [], "model": "llama3.1:8b", "n": 1}'


@pytest.mark.parametrize("said", [SERVED, "llama", LONG])
def test_a_body_may_be_as_large_as_any_before_and_after(ground: Ground, server: NamedServer, said: str) -> None:
    """Of the last size that passes, whichever of the two is larger; one byte more is 413 and reaches nobody."""
    begin, end = json.dumps({"model": said}, ensure_ascii=False).encode()[:-1] + b',"messages":"', b'"}'
    growth = max(0, len(SERVED) - len(said.encode()))
    body = begin + b"x" * (MAX_BODY - growth - len(begin) - len(end)) + end
    assert _raw(ground, body).status_code == 200
    assert server.last.body == body.replace(json.dumps(said, ensure_ascii=False).encode(), b'"llama3.1:8b"', 1)
    count = len(server.heard)
    refused = _raw(ground, body + b" ")
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    assert len(server.heard) == count


def test_a_forms_model_is_rewritten(client: OpenAI, server: NamedServer) -> None:
    """The field alone; the file and other fields of the same text stay."""
    sound = io.BytesIO(b"gpt-4o\r\n\r\ngpt-4o")
    client.audio.transcriptions.create(model="gpt-4o", file=("a.wav", sound), prompt="gpt-4o")
    assert server.last.model == SERVED
    assert server.last.body.count(b"gpt-4o") == 3
    assert int(server.last.headers["content-length"]) == len(server.last.body)


def test_an_alias_comes_and_goes_while_calls_flow(ground: Ground, client: OpenAI) -> None:
    """From the answer of the change on: no lane goes by the old names, and nothing else of the publication changes."""
    place = f"/api/models/llama/publish?tenantId={TEAM}"
    for aliases, works in ((["new"], True), (list(ALIASES), False), (["new"], True), (list(ALIASES), False)):
        changed = ground.operator.must("PUT", place, {"config": {"aliases": aliases}})
        assert changed["aliases"] == aliases
        assert until(lambda: ground.operator.must("GET", place)["status"] == "live")
        if works:
            assert client.chat.completions.create(model="new", messages=HELLO).model == SERVED
            own = client.chat.completions.create(model=f"{OTHERS}/my-llm", messages=HELLO)
            assert own.model != SERVED  # it means the other tenant's again
        else:
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="new", messages=HELLO)
