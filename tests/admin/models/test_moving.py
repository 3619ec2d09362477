"""A model's servers change while it is published: its key, path and budgets stay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from catalog.records import Kind, ModelRecord, PublicationRecord, Server, ServerRecord, server_of

LISTED = {"object": "list", "data": [{"id": "llm", "object": "model", "max_model_len": 4096}]}
SMALLER = {"object": "list", "data": [{"id": "llm", "object": "model", "max_model_len": 2048}]}


@pytest.fixture
async def old(start_server: Any) -> str:
    """A server of the model ``llm``."""
    url: str = await start_server({"/v1/models": (200, LISTED)})
    return url


@pytest.fixture
async def new(start_server: Any) -> str:
    """Another one, of a smaller context."""
    url: str = await start_server({"/v1/models": (200, SMALLER)})
    return url


async def change(api: Any, body: Any, **headers: str) -> Any:
    """PATCH the model."""
    return await api.ask("PATCH", "/api/models/llm", body, headers=headers)


async def stored(api: Any) -> tuple[ModelRecord, PublicationRecord]:
    """The records of the model and its publication."""
    model = await api.services.store.get(Kind.MODEL, "tenant-a/llm")
    publication = await api.services.store.get(Kind.PUBLICATION, model.publication)
    return model, publication


async def callers_at(api: Any, url: str) -> dict[str, str]:
    """Who stands in the record of a server."""
    found = await api.services.store.get(Kind.SERVER, server_of(url))
    return dict(found.callers) if isinstance(found, ServerRecord) else {}


async def test_a_published_model_moves(api: Any, old: str, new: str) -> None:
    """To another server, with its context; nothing else of the publication changes, and the audit says from where."""
    await api.model("llm", old)
    made = await api.publish("llm")
    _, before = await stored(api)
    pokes = api.publisher.pokes
    answer = await change(api, {"url": new + "/"})
    assert answer.status == 200, answer.text
    assert (answer.body["url"], answer.body["servers"]) == (new, [{"url": new, "weight": 1}])
    assert answer.body["contextTokens"] == 2048
    model, publication = await stored(api)
    assert (model.url, model.servers, publication.url, publication.servers) == (new, (), new, ())
    assert publication.tokens.context_tokens == publication.server_context_tokens == 2048
    kept = ("uid", "host", "path", "key_id", "limits", "type", "protocol", "allowed_tenants", "created_at_ms")
    assert [getattr(publication, name) for name in kept] == [getattr(before, name) for name in kept]
    assert (await api.validate(made.body["apiKey"]))["valid"] is True
    assert api.publisher.pokes == pokes + 1
    assert await callers_at(api, old) == {}
    assert await callers_at(api, new) == {publication.uid: "tenant-a"}
    (act,) = (await api.ask("GET", "/api/audit?limit=1")).body["items"]
    assert (act["action"], act["target"]) == ("model.change", "tenant-a/llm")
    assert act["detail"]["url"] == f"{old} -> {new}"


async def test_several_servers_by_weight_and_back_to_one(api: Any, old: str, new: str) -> None:
    """Weights alone ask nobody; a publication of several is nobody's alone; unpublished, no server keeps it."""
    await api.model("llm", old)
    await api.publish("llm")
    several = [{"url": old, "weight": 9}, {"url": new}]
    answer = await change(api, {"servers": several})
    assert answer.status == 200, answer.text
    assert answer.body["servers"] == [{"url": old, "weight": 9}, {"url": new, "weight": 1}]
    assert answer.body["contextTokens"] == 2048  # the smallest of them
    model, publication = await stored(api)
    assert model.servers == publication.servers == (Server(old, 9), Server(new, 1))
    assert await callers_at(api, old) == await callers_at(api, new) == {publication.uid: ""}
    assert (await change(api, {"servers": [{"url": old}, {"url": new}]})).status == 200
    assert (await change(api, {"servers": [{"url": new}]})).body["servers"] == [{"url": new, "weight": 1}]
    assert (await stored(api))[1].servers == ()
    assert await callers_at(api, old) == {}
    assert (await change(api, {"servers": several})).status == 200
    assert (await api.ask("DELETE", "/api/models/llm/publish")).status == 204
    assert await callers_at(api, old) == await callers_at(api, new) == {}


async def test_nothing_changed_writes_nothing(api: Any, old: str) -> None:
    """An empty change, or what is so already."""
    await api.model("llm", old)
    await api.publish("llm")
    before = await stored(api)
    for body in ({}, {"url": old}, {"servers": [{"url": old, "weight": 5}]}):
        assert (await change(api, body)).status == 200
    assert await stored(api) == before


async def test_callers_meet_no_server_that_is_not_ready(api: Any, old: str, kserve: str) -> None:
    """One that is away, that has not the model, or speaks otherwise than the publication: nothing is changed."""
    await api.model("llm", old)
    await api.publish("llm")
    before = await stored(api)
    for url, said in (("http://127.0.0.1:9", "refused"), (kserve, "")):
        for body in ({"url": url}, {"servers": [{"url": old}, {"url": url}]}):
            refused = await change(api, body)
            assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
            assert url in refused.body["detail"]
            assert said in refused.body["detail"]
    assert await stored(api) == before
    assert (await api.ask("DELETE", "/api/models/llm/publish")).status == 204
    moved = await change(api, {"url": "http://127.0.0.1:9"})
    assert (moved.status, moved.body["ready"]) == (200, False)


async def test_a_model_is_published_only_where_all_its_servers_are_ready(api: Any, old: str) -> None:
    """Else calls would go where nobody looked."""
    await api.model("llm", old)
    assert (await change(api, {"servers": [{"url": old}, {"url": "http://127.0.0.1:9"}]})).body["ready"] is False
    refused = await api.publish("llm")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")
    assert "http://127.0.0.1:9" in refused.body["detail"]
    assert (await change(api, {"url": old})).body["ready"] is True  # the other one was why
    assert (await api.publish("llm")).status == 201


async def test_a_server_that_is_away_takes_no_type_from_the_model(api: Any, old: str) -> None:
    """What a model is stays known, as where it is looked at while its server is away."""
    await api.model("llm", old)
    moved = await change(api, {"url": "http://127.0.0.1:9"})
    assert (moved.body["ready"], moved.body["type"], moved.body["protocol"]) == (False, "openai", "openai")


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"url": "ftp://a"}, {"url": "format"}),
        ({"url": "http://a/v1/models"}, {"url": "format"}),
        ({"url": None}, {"url": "type"}),
        ({"servers": []}, {"servers": "length"}),
        ({"servers": [{"url": f"http://a:{port}"} for port in range(1, 18)]}, {"servers": "length"}),
        ({"servers": [{"url": "http://a"}, {"url": "http://a:80"}]}, {"servers": "format"}),
        ({"servers": [{"url": "http://a", "weight": 0}]}, {"servers[0].weight": "range"}),
        ({"servers": [{"url": "http://a", "weight": 1001}]}, {"servers[0].weight": "range"}),
        ({"servers": [{"weight": 1}]}, {"servers[0].url": "required"}),
        ({"url": "http://a", "servers": [{"url": "http://a"}]}, {"servers": "format"}),
        ({"name": "other"}, {"name": "unknown_field"}),
    ],
)
async def test_bad_servers_are_refused(api: Any, old: str, body: Any, faults: Any) -> None:
    """Every fault is named and nothing is changed."""
    await api.model("llm", old)
    refused = await change(api, body)
    assert (refused.status, refused.faults) == (400, faults)
    assert (await api.ask("GET", "/api/models/llm")).body["url"] == old


async def test_an_operator_moves_within_what_the_tenant_may_have(start_api: Any, old: str, new: str) -> None:
    """What leads there already may stay; what is new must be listed."""
    api = await start_api()
    await api.tenant("tenant-a", upstreamAllow=["10.0.0.0/8"])
    await api.model("llm", old)
    await api.publish("llm")
    await api.user("op", "operator", "tenant-a")
    await api.become("op")
    for body, field in (
        ({"url": new}, "url"),
        ({"servers": [{"url": old}, {"url": new}]}, "servers[1].url"),
    ):
        refused = await change(api, body)
        assert (refused.status, refused.faults) == (400, {field: "reserved"})


async def test_who_publishes_meanwhile_asks_what_it_leads_to_then(api: Any, start_server: Any) -> None:
    """A model that is moved while its old server is asked: publishing and a new type hold for the new one, or fail."""
    moves: list[str] = []
    is_away = False

    async def asked(_: web.Request) -> web.Response:
        nonlocal is_away
        if moves:
            assert (await change(api, {"url": moves.pop()})).status == 200
            is_away = True
        return web.json_response(LISTED)

    async def goes(_: web.Request) -> web.Response:
        return web.json_response({}, status=503) if is_away else web.json_response(LISTED)

    first, second = await start_server({"/v1/models": asked}), await start_server({"/v1/models": goes})
    await api.model("llm", first)
    moves.append("http://127.0.0.1:9")
    refused = await api.publish("llm")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY"), refused.text

    is_away = False
    assert (await change(api, {"url": first})).body["ready"] is True
    assert (await api.publish("llm")).status == 201
    moves.append(second)
    refused = await api.update("llm", modelType="traditional")
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY"), refused.text
    assert [one.url for one in await stored(api)] == [second, second]


async def test_changes_at_once(api: Any, old: str, new: str) -> None:
    """One of two that saw the same state is refused by its tag; without tags one comes after the other."""
    made = await api.model("llm", old)
    await api.publish("llm")
    assert (await change(api, {"url": new}, **{"If-Match": made.headers["ETag"]})).status == 412
    tag = (await api.ask("GET", "/api/models/llm")).headers["ETag"]
    bodies = [{"servers": [{"url": old}, {"url": new, "weight": weight}]} for weight in range(2, 6)]
    answers = await asyncio.gather(*(change(api, body, **{"If-Match": tag}) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412]
    answers = await asyncio.gather(*(change(api, body) for body in bodies))
    assert {answer.status for answer in answers} == {200}
    model, publication = await stored(api)
    assert model.servers == publication.servers


async def test_who_may_not(api: Any, old: str) -> None:
    """A viewer changes nothing; another tenant's operator finds no such model."""
    await api.model("llm", old)
    await api.user("viewer", "viewer", "tenant-a")
    await api.user("other", "operator", "tenant-b")
    await api.become("viewer")
    assert (await change(api, {"url": old})).status == 403
    await api.become("other")
    assert (await change(api, {"url": old})).code == "MODEL_NOT_FOUND"


async def test_a_model_may_be_registered_with_several_servers(api: Any, old: str, new: str) -> None:
    """As a change of them says it; all are asked, the first is its url, and its publication leads to all."""
    body = {"name": "llm", "tenantId": "tenant-a", "servers": [{"url": old + "/v1", "weight": 9}, {"url": new}]}
    made = await api.ask("POST", "/api/models", body)
    assert made.status == 201, made.text
    assert made.body["url"] == old
    assert made.body["servers"] == [{"url": old, "weight": 9}, {"url": new, "weight": 1}]
    assert (made.body["ready"], made.body["contextTokens"]) == (True, 2048)
    await api.publish("llm")
    _, publication = await stored(api)
    assert publication.servers == (Server(old, 9), Server(new, 1))
    (act,) = (await api.ask("GET", "/api/audit?action=model.register")).body["items"]
    assert act["detail"]["servers"] == f"{old}*9 {new}*1"


async def test_a_model_of_servers_alone_is_called_as_the_first_lists_it(api: Any, old: str) -> None:
    """One server is one; its weight says nothing."""
    made = await api.ask("POST", "/api/models", {"tenantId": "tenant-a", "servers": [{"url": old, "weight": 7}]})
    assert (made.status, made.body["name"], made.body["url"]) == (201, "llm", old)
    assert made.body["servers"] == [{"url": old, "weight": 1}]
    assert (await stored_model(api)).servers == ()


async def stored_model(api: Any) -> ModelRecord:
    """The record of the model."""
    found: ModelRecord = await api.services.store.get(Kind.MODEL, "tenant-a/llm")
    return found


@pytest.mark.parametrize(
    ("servers", "field", "said"),
    [
        ({}, "url", "is required"),
        ({"url": "http://a:1", "servers": [{"url": "http://a:1"}]}, "servers", "give url or servers, not both"),
        ({"servers": []}, "servers", "must name a server at least"),
        ({"servers": [{"url": "http://a:1"}, {"url": "http://a:1/"}]}, "servers", "must name each server once"),
        ({"servers": [{"url": "http://a:1", "weight": 0}]}, "servers[0].weight", ""),
        ({"servers": [{"url": "http://a:1/x"}]}, "servers[0].url", ""),
    ],
)
async def test_how_servers_are_named_is_told(api: Any, servers: dict[str, Any], field: str, said: str) -> None:
    """Either way, but one; nothing is registered."""
    answer = await api.ask("POST", "/api/models", {"name": "llm", "tenantId": "tenant-a", **servers})
    assert (answer.status, answer.code) == (400, "INVALID_REQUEST")
    (fault,) = answer.body["errors"]
    assert fault["field"] == field
    assert said in fault["message"]
    assert await api.services.store.get(Kind.MODEL, "tenant-a/llm") is None


async def test_an_operator_registers_servers_of_the_list_only(api: Any, old: str) -> None:
    """Each of several: the one that is not listed is named."""
    host = old.removeprefix("http://").partition(":")[0]
    await api.ask("PATCH", "/api/tenants/tenant-a", {"upstreamAllow": [host]})
    await api.user("op", "operator", "tenant-a")
    await api.become("op")
    body = {"name": "llm", "tenantId": "tenant-a", "servers": [{"url": old}, {"url": "http://10.99.0.1:80"}]}
    answer = await api.ask("POST", "/api/models", body)
    assert (answer.status, answer.faults) == (400, {"servers[1].url": "reserved"})
