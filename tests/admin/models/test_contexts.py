"""The context that a model's server tells: read in each server's own form, taken over, followed, and harmless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from admin.models import probing
from admin.models.contexts import (
    QUESTIONS,
    of_card,
    of_list,
    of_llama_cpp,
    of_ollama,
    of_text_generation_inference,
)
from admin.schemas.fields import MAX_CONTEXT_TOKENS
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Kind, ModelRecord, ModelType, Protocol, Source
from tests.admin.models import context_servers as servers

NOT_FOUND = (404, {"error": "not found"})
NO_NUMBERS: tuple[Any, ...] = (None, True, "8192", 0, -1, 4096.5, MAX_CONTEXT_TOKENS + 1, 10**40, [8192], {})


@pytest.mark.parametrize(
    ("told", "context"),
    [
        (of_list("my-llm", servers.vllm()["data"]), 32_768),
        (of_list("my-lora", servers.vllm()["data"]), 32_768),
        (of_list("other", servers.vllm()["data"]), None),
        (of_list("my-llm", servers.SGLANG["data"]), 131_072),
        (of_list("my-llm", servers.LLAMA_CPP_MODELS["data"]), None),
        (of_list("a", [{"id": "a", "parent": "a"}]), None),
        (of_list("a", [{"id": "a", "parent": ["b"]}, 7, None, {"id": ["a"]}]), None),
        (of_card(servers.OLLAMA_MODEL), None),
        (of_llama_cpp(servers.llama_cpp_props()), 16_384),
        (of_ollama(servers.ollama_show()), 40_960),
        (of_ollama({"model_info": {"a.context_length": 5, "b.context_length": 9}}), 9),
        (of_ollama({"model_info": {"general.architecture": "a", "a.context_length": 5, "b.context_length": 9}}), 5),
        (of_text_generation_inference(servers.text_generation_inference()), 4_096),
        (of_card({"max_model_len": 1}), 1),
        (of_card({"max_model_len": MAX_CONTEXT_TOKENS}), MAX_CONTEXT_TOKENS),
    ],
)
def test_each_server_tells_it_in_its_own_form(told: int | None, context: int | None) -> None:
    """The number of the very model; an adapter has that of what it adapts."""
    assert told == context


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_context_is_not_told(value: Any) -> None:
    """Wrong kinds, nothing, fractions and numbers that no setting could be."""
    assert of_list("my-llm", servers.vllm(value)["data"]) is None
    assert of_llama_cpp(servers.llama_cpp_props(value)) is None
    assert of_ollama(servers.ollama_show(value)) is None
    assert of_text_generation_inference(servers.text_generation_inference(value)) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(("model_info", "x.context_length", "general.architecture", "n_ctx", "max_total_tokens"))
            | st.just("default_generation_settings"),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_no_answer_breaks_reading_it(body: Any) -> None:
    """Whatever JSON a server sends, a number in range is told or none."""
    for question in QUESTIONS:
        assert question.read(body) is None or 1 <= question.read(body) <= MAX_CONTEXT_TOKENS


def _openai_list(*names: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


@pytest.fixture
async def ollama(stack: Any) -> str:
    """A server that answers as Ollama does."""

    async def model(_request: web.Request) -> web.Response:
        return web.json_response(servers.OLLAMA_MODEL)

    async def show(request: web.Request) -> web.Response:
        return web.json_response(servers.ollama_show() if await request.json() == {"model": "my-llm"} else {})

    app = web.Application()
    app.router.add_get("/v1/models/{name}", model)
    app.router.add_post("/api/show", show)
    server = TestServer(app)
    await stack.enter_async_context(server)
    return str(server.make_url("")).rstrip("/")


async def test_ollama_is_asked_what_its_list_does_not_tell(api: Any, ollama: str) -> None:
    """Its answer has the licence in it and is longer than those about readiness may be."""
    made = await api.model("my-llm", ollama)
    assert made.body["contextTokens"] == 40_960
    tokens = (await api.publish("my-llm")).body["tokens"]
    assert (tokens["contextTokens"], tokens["contextTokensFrom"]) == (40_960, "server")


@pytest.mark.parametrize(
    ("routes", "context"),
    [
        ({"/v1/models": (200, servers.vllm())}, 32_768),
        ({"/v1/models": (200, servers.SGLANG)}, 131_072),
        ({"/v1/models": (200, servers.LLAMA_CPP_MODELS), "/props": (200, servers.llama_cpp_props())}, 16_384),
        ({"/v1/models": (200, _openai_list("my-llm")), "/info": (200, servers.text_generation_inference())}, 4_096),
        ({"/v1/models": (200, _openai_list("my-llm")), "/props": (500, servers.llama_cpp_props())}, None),
        ({"/v1/models": (200, _openai_list("my-llm"))}, None),
    ],
    ids=["vllm", "sglang", "llama.cpp", "tgi", "an error that tells", "nobody tells"],
)
async def test_a_publication_takes_over_what_the_server_tells(
    api: Any, start_server: Any, routes: Any, context: int | None
) -> None:
    """With where it comes from; where none is told, the default, as before."""
    await api.model("my-llm", await start_server(routes))
    tokens = (await api.publish("my-llm")).body["tokens"]
    source = "default" if context is None else "server"
    assert tokens["contextTokens"] == context or (context is None and tokens["contextTokens"] == 8_192)
    assert (tokens["contextTokensFrom"], tokens["serverContextTokens"]) == (source, context)
    assert tokens["contextTokensHint"] == ""


async def test_what_an_operator_gives_stays_and_a_difference_is_shown(api: Any, start_server: Any) -> None:
    """Above what the server tells it holds too much, below it too little; null gives the setting up."""
    await api.model("my-llm", await start_server({"/v1/models": (200, servers.vllm())}))
    made = (await api.publish("my-llm", tokens={"contextTokens": 131_072})).body["tokens"]
    assert (made["contextTokens"], made["contextTokensFrom"], made["serverContextTokens"]) == (
        131_072,
        "setting",
        32_768,
    )
    assert made["contextTokensHint"] == ("the server tells a context of 32768: calls hold back more than they can cost")
    await api.ask("GET", "/api/models/my-llm")
    less = (await api.update("my-llm", tokens={"contextTokens": 4_096})).body["tokens"]
    assert (less["contextTokens"], less["contextTokensFrom"]) == (4_096, "setting")
    assert "may cost more than they hold back" in less["contextTokensHint"]
    kept = (await api.update("my-llm", tokens={"reservation": "adaptive"})).body["tokens"]
    assert (kept["contextTokens"], kept["contextTokensFrom"]) == (4_096, "setting")
    given_up = (await api.update("my-llm", tokens={"contextTokens": None})).body["tokens"]
    assert (given_up["contextTokens"], given_up["contextTokensFrom"]) == (32_768, "server")
    assert given_up["contextTokensHint"] == ""


async def test_a_setting_that_is_given_up_leaves_the_smallest_of_several(api: Any, start_server: Any) -> None:
    """As at publishing: a call must fit whichever server gets it."""
    urls = [await start_server({"/v1/models": (200, servers.vllm(context))}) for context in (32_768, 8_000)]
    await api.model("my-llm", urls[0])
    several = {"servers": [{"url": url} for url in urls]}
    assert (await api.ask("PATCH", "/api/models/my-llm", several)).body["contextTokens"] == 8_000
    await api.publish("my-llm", tokens={"contextTokens": 131_072})
    given_up = (await api.update("my-llm", tokens={"contextTokens": None})).body["tokens"]
    assert (given_up["contextTokens"], given_up["contextTokensFrom"]) == (8_000, "server")


async def test_a_publication_follows_a_server_that_changes(api: Any, start_server: Any) -> None:
    """Whoever looks at the model has its server asked; its publication follows, unless an operator gave a number."""
    context = 32_768

    async def models(_request: web.Request) -> web.Response:
        return web.json_response(servers.vllm(context))

    await api.model("my-llm", await start_server({"/v1/models": models}))
    assert (await api.publish("my-llm")).body["tokens"]["contextTokens"] == 32_768
    context = 8_000
    assert (await api.ask("GET", "/api/models/my-llm")).body["contextTokens"] == 8_000
    followed = (await api.show("my-llm")).body["tokens"]
    assert (followed["contextTokens"], followed["contextTokensFrom"]) == (8_000, "server")
    await api.update("my-llm", tokens={"contextTokens": 8_000})
    context = 16_000
    await api.ask("GET", "/api/models/my-llm")
    given_number = (await api.show("my-llm")).body["tokens"]
    assert (given_number["contextTokens"], given_number["serverContextTokens"]) == (8_000, 16_000)
    entries = await api.services.store.audit_page()
    assert any(one.audit.action == "model.observe" and one.audit.detail.get("contextTokens") for one in entries)


async def test_a_server_that_tells_nothing_any_more_keeps_what_it_told(api: Any, start_server: Any, store: Any) -> None:
    """A restart, or another server at the same URL; and looking again writes nothing."""
    listed = servers.vllm()

    async def models(_request: web.Request) -> web.Response:
        return web.json_response(listed)

    await api.model("my-llm", await start_server({"/v1/models": models}))
    await api.publish("my-llm")
    listed = _openai_list("my-llm")
    acts = store.xlen("tk:audit")
    assert (await api.ask("GET", "/api/models/my-llm")).body["contextTokens"] == 32_768
    assert (await api.show("my-llm")).body["tokens"]["contextTokens"] == 32_768
    assert store.xlen("tk:audit") == acts


async def test_kserves_models_are_asked_when_they_are_published_and_not_for_a_look(api: Any, start_server: Any) -> None:
    """What KServe tells of readiness counts; a look must wake no model that sleeps."""
    asked = 0

    async def models(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(servers.vllm())

    url = await start_server({"/v1/models": models})
    record = ModelRecord(
        "00u", "tenant-a", "my-llm", url, ModelType.OPENAI, Protocol.OPENAI, True, "", 0, 0, 0, source=Source.KUBERNETES
    )
    audit = Audit(Recordless.START, "model.appear", record.id, "tenant-a", "")
    await api.services.store.commit([Put(record, 0)], audit=audit)
    assert (await api.ask("GET", "/api/models/my-llm")).body["contextTokens"] is None
    assert asked == 0
    tokens = (await api.publish("my-llm")).body["tokens"]
    assert (tokens["contextTokens"], tokens["contextTokensFrom"]) == (32_768, "server")
    assert (await api.ask("GET", "/api/models/my-llm")).body["contextTokens"] == 32_768


KEEP, GIVE_UP = {"reservation": "adaptive"}, {"contextTokens": None}


@pytest.mark.parametrize(
    ("number", "source", "change", "then"),
    [(9_000, "setting", KEEP, 9_000), (8_192, "default", KEEP, 8_192), (9_000, "setting", GIVE_UP, 32_768)],
)
async def test_a_setting_of_the_release_before_stays(
    api: Any, start_server: Any, number: int, source: str, change: Any, then: int
) -> None:
    """Its records do not say who gave the number: what is not the default was given, the default by nobody."""
    await api.model("my-llm", await start_server({"/v1/models": (200, servers.vllm())}))
    made = (await api.publish("my-llm")).body
    record = await api.services.store.get(Kind.PUBLICATION, made["uid"])
    tokens = structs.replace(record.tokens, context_tokens=number, context_tokens_from=None)
    old = structs.replace(record, tokens=tokens, server_context_tokens=None)
    audit = Audit(Recordless.START, "publication.update", "tenant-a/my-llm", "tenant-a", "")
    await api.services.store.commit([Put(old, record.version)], audit=audit)
    assert (await api.show("my-llm")).body["tokens"]["contextTokensFrom"] == source
    assert (await api.update("my-llm", tokens=change)).body["tokens"]["contextTokens"] == then


async def _huge(_request: web.Request) -> web.Response:
    return web.json_response({"default_generation_settings": {"n_ctx": 5}, "x": "x" * 2**21})


async def _digits(_request: web.Request) -> web.Response:
    text = '{"default_generation_settings":{"n_ctx":' + "9" * 5_000 + "}}"
    return web.Response(text=text, content_type="application/json")


async def _deep(_request: web.Request) -> web.Response:
    return web.Response(text="[" * 100_000, content_type="application/json")


async def _away(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/told")


async def _hang(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("props", [_huge, _digits, _deep, _away, _hang], ids=lambda one: one.__name__)
async def test_a_hostile_answer_about_the_context_harms_nothing(
    api: Any, start_server: Any, props: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huge, endless digits, nested, a redirect, or none at all: the model is ready all the same, in bounded time."""
    monkeypatch.setattr(probing, "CONTEXT_TIMEOUT_S", 0.2)
    routes = {"/v1/models": (200, _openai_list("my-llm")), "/props": props, "/told": (200, servers.llama_cpp_props())}
    made = await asyncio.wait_for(api.model("my-llm", await start_server(routes)), 10)
    assert (made.body["ready"], made.body["contextTokens"]) == (True, None)
    assert (await api.publish("my-llm")).status == 201
