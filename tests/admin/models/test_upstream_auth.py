"""What a model's servers want with each call: write-only, bound to its servers, and used by what the admin asks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from msgspec import structs

from catalog.keys.keytext import KeyText
from catalog.keys.recovery import encrypt
from catalog.keys.sealing import UnsealError
from catalog.keys.secrets import Secrets
from catalog.keys.upstream import owner_of, unsealed
from catalog.records import Kind, ModelRecord, PublicationRecord, UpstreamAuth

LISTED = {"object": "list", "data": [{"id": "llm", "object": "model", "max_model_len": 4096}]}
TEXT = "sk-find-me-nowhere"
AUTH = {"header": "authorization", "value": f"Bearer {TEXT}"}


@pytest.fixture
async def locked(start_server: Any) -> str:
    """A server of the model ``llm`` that wants the key, as vLLM with ``--api-key``."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TEXT}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response(LISTED)

    url: str = await start_server({"/v1/models": answer})
    return url


@pytest.fixture
async def open_one(start_server: Any) -> str:
    """A server of the model that wants nothing."""
    url: str = await start_server({"/v1/models": (200, LISTED)})
    return url


async def change(api: Any, body: Any, **headers: str) -> Any:
    """PATCH the model."""
    return await api.ask("PATCH", "/api/models/llm", body, headers=headers)


async def stored(api: Any) -> tuple[ModelRecord, PublicationRecord]:
    """The records of the model and its publication."""
    model = await api.services.store.get(Kind.MODEL, "tenant-a/llm")
    publication = await api.services.store.get(Kind.PUBLICATION, model.publication)
    return model, publication


def opened(record: ModelRecord | PublicationRecord, secrets: Secrets) -> str:
    """The value in a record."""
    auth = record.upstream_auth
    assert auth is not None
    return unsealed(auth.sealed, owner_of(record, auth.header), secrets).reveal()


async def test_a_locked_server_is_asked_by_its_key(api: Any, locked: str, secrets: Secrets) -> None:
    """Registered, published, asked again; a GET says that there is a value and never which."""
    without = await api.model("llm", locked)
    assert without.body["ready"] is False
    assert "upstreamAuth" in without.body["message"]
    assert without.body["upstreamAuth"] is None
    given = await change(api, {"upstreamAuth": AUTH})
    assert (given.status, given.body["ready"], given.body["contextTokens"]) == (200, True, 4096), given.text
    shown = {"header": "authorization", "set": True, "secret": None}
    assert given.body["upstreamAuth"] == shown
    assert (await api.publish("llm")).status == 201
    asked = await api.ask("GET", "/api/models/llm")
    assert (asked.body["ready"], asked.body["upstreamAuth"]) == (True, shown)
    model, publication = await stored(api)
    assert opened(model, secrets) == opened(publication, secrets) == AUTH["value"]
    await api.ask("DELETE", "/api/models/llm/publish")
    await api.ask("DELETE", "/api/models/llm")
    made = await api.model("llm", locked, upstreamAuth=AUTH)
    assert (made.body["ready"], made.body["upstreamAuth"]) == (True, shown)


async def test_it_is_rotated_taken_away_and_told_of(api: Any, open_one: str, secrets: Secrets) -> None:
    """The audit says that it changed and which header it is; no answer, act or record has the text."""
    await api.model("llm", open_one, upstreamAuth=AUTH)
    await api.publish("llm")
    first = await stored(api)
    assert (await change(api, {"upstreamAuth": AUTH | {"value": f"Bearer 2 {TEXT}"}})).status == 200
    second = await stored(api)
    assert opened(second[1], secrets) == f"Bearer 2 {TEXT}"
    assert second[1].version == first[1].version + 1
    assert (await change(api, {"upstreamAuth": {"header": "Api-Key", "value": TEXT}})).status == 200
    assert (await stored(api))[1].upstream_auth.header == "api-key"  # type: ignore[union-attr]
    assert (await change(api, {"upstreamAuth": None})).body["upstreamAuth"] is None
    assert [one.upstream_auth for one in await stored(api)] == [None, None]
    acts = (await api.ask("GET", "/api/audit?limit=4")).body["items"]
    assert [one["detail"] for one in acts if one["action"] == "model.change"] == [
        {"upstreamAuth": "api-key -> "},
        {"upstreamAuth": "authorization -> api-key", "upstreamAuth.value": "changed"},
        {"upstreamAuth.value": "changed"},
    ]
    assert not [answer for answer in api.seen if TEXT in answer]


async def test_a_leaked_value_is_replaced_while_a_server_is_away(api: Any, start_server: Any, open_one: str) -> None:
    """A server that stays may be the reason for the change; one that refuses the new value is not let into calls."""
    status = 200

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(LISTED if status == 200 else {}, status=status)

    url = await start_server({"/v1/models": answer})
    await api.model("llm", open_one)
    assert (await change(api, {"servers": [{"url": open_one}, {"url": url}], "upstreamAuth": AUTH})).status == 200
    assert (await api.publish("llm")).status == 201
    status = 503
    rotated = await change(api, {"upstreamAuth": {"value": "Bearer 2"}})
    assert (rotated.status, rotated.body["ready"]) == (200, False)
    status = 401
    refused = await change(api, {"upstreamAuth": {"value": "Bearer 3"}})
    assert (refused.status, refused.code) == (409, "MODEL_NOT_READY")


async def test_the_store_has_no_text(api: Any, open_one: str, store: Any) -> None:
    """Whoever has a dump of it has nothing."""
    await api.model("llm", open_one, upstreamAuth=AUTH)
    await api.publish("llm")
    await change(api, {"upstreamAuth": AUTH})
    dumped = [store.dump(name) for name in store.scan_iter("*")]
    assert len(dumped) > 5
    assert not [one for one in dumped if TEXT.encode() in one]


async def test_a_server_that_is_new_gets_it_only_where_it_is_sent_again(
    api: Any, locked: str, open_one: str, secrets: Secrets
) -> None:
    """Whether it comes beside the others or in their place; a server that stays or goes changes nothing."""
    await api.model("llm", locked, upstreamAuth=AUTH)
    await api.publish("llm")
    assert (await change(api, {"servers": [{"url": locked, "weight": 3}]})).body["upstreamAuth"] is not None
    refused = await change(api, {"servers": [{"url": locked}, {"url": open_one}]})
    assert refused.code == "MODEL_NOT_READY"  # the old one would have lost it
    assert "sent again" in refused.body["detail"]
    both = {"servers": [{"url": locked}, {"url": open_one}]}
    assert (await change(api, both | {"upstreamAuth": AUTH})).body["upstreamAuth"] is not None
    weights = {"servers": [{"url": open_one, "weight": 9}, {"url": locked}]}
    assert (await change(api, weights)).body["upstreamAuth"] is not None
    assert (await change(api, {"url": locked})).body["upstreamAuth"] is not None
    model, publication = await stored(api)
    assert opened(model, secrets) == opened(publication, secrets) == AUTH["value"]
    moved = await change(api, {"url": open_one})
    assert (moved.status, moved.body["upstreamAuth"]) == (200, None)
    assert [one.upstream_auth for one in await stored(api)] == [None, None]
    assert (await change(api, {"url": locked})).code == "MODEL_NOT_READY"  # it does not come back


async def test_whoever_writes_the_store_sends_it_nowhere_else(api: Any, open_one: str, secrets: Secrets) -> None:
    """It is sealed for model, header and origins; a key's stored text cannot be put in its place."""
    await api.model("llm", open_one, upstreamAuth=AUTH)
    await api.publish("llm")
    _, publication = await stored(api)
    assert publication.upstream_auth is not None
    sealed = publication.upstream_auth.sealed
    for others in (
        structs.replace(publication, url="http://evil.test"),
        structs.replace(publication, tenant="tenant-b"),
        structs.replace(publication, model="other"),
    ):
        with pytest.raises(UnsealError):
            unsealed(sealed, owner_of(others, "authorization"), secrets)
    with pytest.raises(UnsealError):
        unsealed(sealed, owner_of(publication, "x-other"), secrets)
    recovered = encrypt(KeyText("tk_text"), owner_of(publication, "authorization").decode(), secrets)
    with pytest.raises(UnsealError):
        unsealed(recovered, owner_of(publication, "authorization"), secrets)


@pytest.mark.parametrize(
    ("auth", "faults"),
    [
        ({"value": f"Bearer {TEXT}\r\nx-evil: 1"}, {"upstreamAuth.value": "format"}),
        ({"value": f"{TEXT}\n"}, {"upstreamAuth.value": "format"}),
        ({"value": f" {TEXT}"}, {"upstreamAuth.value": "format"}),
        ({"value": f"{TEXT}\u0000"}, {"upstreamAuth.value": "format"}),
        ({"value": f"{TEXT}\u00e9"}, {"upstreamAuth.value": "format"}),
        ({"value": ""}, {"upstreamAuth.value": "length"}),
        ({"value": TEXT * 4_000}, {"upstreamAuth.value": "length"}),
        ({"value": None}, {"upstreamAuth.value": "type"}),
        ({"value": [TEXT]}, {"upstreamAuth.value": "type"}),
        ({}, {"upstreamAuth": "required"}),
        ({"value": TEXT, "secret": "one"}, {"upstreamAuth": "required"}),
        ({"secret": "Not A Name"}, {"upstreamAuth.secret": "format"}),
        ({"header": "host", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "Content-Length", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "x-tollkeeper-publication", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "X-Envoy-Retry-On", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "x-forwarded-for", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "transfer-encoding", "value": TEXT}, {"upstreamAuth.header": "reserved"}),
        ({"header": "two words", "value": TEXT}, {"upstreamAuth.header": "format"}),
        ({"header": ":path", "value": TEXT}, {"upstreamAuth.header": "format"}),
        ({"header": "", "value": TEXT}, {"upstreamAuth.header": "format"}),
        ({"header": "a" * 65, "value": TEXT}, {"upstreamAuth.header": "format"}),
        ({"Value": TEXT}, {"upstreamAuth.Value": "unknown_field"}),
    ],
)
async def test_what_no_server_may_get_is_refused(api: Any, open_one: str, auth: Any, faults: Any) -> None:
    """By registering and by changing alike; the answer never quotes the value."""
    body = {"name": "new", "tenantId": "tenant-a", "url": open_one, "upstreamAuth": auth}
    await api.model("llm", open_one)
    for refused in (await api.ask("POST", "/api/models", body), await change(api, {"upstreamAuth": auth})):
        assert (refused.status, refused.faults) == (400, faults)
        assert TEXT not in refused.text
    model = await api.services.store.get(Kind.MODEL, "tenant-a/llm")
    assert model.upstream_auth is None
    assert await api.services.store.get(Kind.MODEL, "tenant-a/new") is None


async def test_the_last_values_that_pass(api: Any, open_one: str) -> None:
    """A value of 8,192 characters, a header of 64, and Anthropic's own header."""
    await api.model("llm", open_one)
    for header, value in (("a" * 64, "x" * 8_192), ("x-api-key", "~ !"), ("Authorization", "x")):
        made = await change(api, {"upstreamAuth": {"header": header, "value": value}})
        assert (made.status, made.body["upstreamAuth"]["header"]) == (200, header.lower())


async def test_a_secret_of_the_gateways_is_not_known_here(api: Any, locked: str) -> None:
    """The server cannot be asked by it: it is taken for ready by the type that was given."""
    await api.model("llm", locked, type="openai")
    given = await change(api, {"upstreamAuth": {"secret": "llm-credential"}})
    assert given.body["upstreamAuth"] == {"header": "authorization", "set": True, "secret": "llm-credential"}
    assert given.body["ready"] is True
    assert (await api.publish("llm")).status == 201
    _, publication = await stored(api)
    assert publication.upstream_auth == UpstreamAuth("authorization", secret="llm-credential")


async def test_an_operator_names_no_secret(start_api: Any, open_one: str, start_server: Any) -> None:
    """It is the gateway's: who could name one would have it sent to a server of his own."""
    other = await start_server({"/v1/models": (200, LISTED)})
    secret = {"header": "authorization", "secret": "llm-credential"}
    api = await start_api()
    await api.tenant("tenant-a", upstreamAllow=["127.0.0.0/8"])
    await api.model("llm", open_one, upstreamAuth=secret, type="openai")
    await api.publish("llm")
    await api.user("op", "operator", "tenant-a")
    await api.become("op")
    named = {"name": "mine", "tenantId": "tenant-a", "url": other, "type": "openai", "upstreamAuth": secret}
    for refused in (
        await api.ask("POST", "/api/models", named),
        await change(api, {"upstreamAuth": secret}),
        await change(api, {"upstreamAuth": secret | {"secret": "another"}}),
        await change(api, {"url": other, "upstreamAuth": secret}),
    ):
        assert (refused.status, refused.faults) == (400, {"upstreamAuth.secret": "reserved"})
    assert (await stored(api))[1].url == open_one
    assert (await change(api, {"servers": [{"url": open_one, "weight": 5}]})).body["upstreamAuth"] is not None
    assert (await change(api, {"url": other})).body["upstreamAuth"] is None
    model, publication = await stored(api)
    assert (model.upstream_auth, publication.upstream_auth) == (None, None)


VALUE, SECRET = {"value": "Bearer one"}, {"secret": "llm-credential"}


@pytest.mark.parametrize(
    ("gives", "refused", "taken"),
    [((True, False), SECRET, VALUE), ((False, True), VALUE, SECRET), ((False, False), VALUE, None)],
    ids=["envoy", "envoy-gateway", "ai-gateway"],
)
async def test_what_the_gateway_cannot_give_is_refused(
    api: Any, open_one: str, gives: tuple[bool, bool], refused: Any, taken: Any
) -> None:
    """With nothing changed: a model that is live stays so."""
    await api.model("llm", open_one, type="openai")
    await api.publish("llm")
    before = await stored(api)
    api.publisher.injects_values, api.publisher.injects_secrets = gives
    named = {"name": "new", "tenantId": "tenant-a", "url": open_one, "type": "openai", "upstreamAuth": refused}
    for answer in (await change(api, {"upstreamAuth": refused}), await api.ask("POST", "/api/models", named)):
        assert (answer.status, answer.faults) == (400, {f"upstreamAuth.{next(iter(refused))}": "not_enabled"})
    assert await stored(api) == before
    if taken:
        assert (await change(api, {"upstreamAuth": taken})).status == 200
    else:
        assert (await change(api, {"upstreamAuth": SECRET})).faults == {"upstreamAuth.secret": "not_enabled"}


async def test_changes_at_once(api: Any, open_one: str, secrets: Secrets) -> None:
    """Model and publication end with one and the same value; of those that saw the same state one is done."""
    await api.model("llm", open_one)
    await api.publish("llm")
    tag = (await api.ask("GET", "/api/models/llm")).headers["ETag"]
    bodies = [{"upstreamAuth": {"value": f"Bearer {number}"}} for number in range(4)]
    answers = await asyncio.gather(*(change(api, body, **{"If-Match": tag}) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412]
    assert {one.status for one in await asyncio.gather(*(change(api, body) for body in bodies))} == {200}
    model, publication = await stored(api)
    assert opened(model, secrets) == opened(publication, secrets)


async def test_who_sees_the_model_sees_no_value(api: Any, open_one: str) -> None:
    """Lists, pages and the API's document: the value is for writing only."""
    await api.model("llm", open_one, upstreamAuth=AUTH)
    await api.publish("llm")
    for path in ("/api/models", "/api/models/llm", "/api/models/llm/publish", "/api/published-models", "/api/audit"):
        answer = await api.ask("GET", path)
        assert answer.status == 200
        assert TEXT not in answer.text
        assert "v1:" not in answer.text  # nor as it is sealed
    document = json.loads((await api.ask("GET", "/openapi.json")).text)
    value = document["components"]["schemas"]["UpstreamAuthInput"]["properties"]["value"]
    assert (value["writeOnly"], value["format"]) == (True, "password")
