"""Tenants, models, and what a caller may see of them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from admin.people.sessions import make_token
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Role, UserRecord
from runtime.clock import SystemClock

UNLIMITED = {"requestsPerMinute": None, "requestsPerHour": None, "tokensPerHour": None, "burstLimit": None}


async def _become(api: Any, secrets: Any, *tenants: str) -> None:
    """Go on as a user of these tenants."""
    user = UserRecord("someone", "", Role.OPERATOR, tenants, 0, 0)
    await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "someone", "", ""))
    api.token = make_token(user, secrets.jwt_key, SystemClock().wall_ms()).text


async def test_tenants_are_made_shown_changed_and_listed(api: Any) -> None:
    """A tenant has no limit unless given; PATCH keeps what is absent, null is unlimited."""
    made = await api.ask("POST", "/api/tenants", {"tenantId": "new", "rateLimiting": {"requestsPerMinute": 7}})
    assert made.status == 201
    assert made.body["rateLimiting"] == UNLIMITED | {"requestsPerMinute": 7}
    assert made.body["disabled"] is False
    assert (await api.ask("POST", "/api/tenants", {"tenantId": "new"})).code == "TENANT_EXISTS"
    changed = await api.ask("PATCH", "/api/tenants/new", {"rateLimiting": {"burstLimit": 3}, "disabled": True})
    assert changed.body["rateLimiting"] == UNLIMITED | {"requestsPerMinute": 7, "burstLimit": 3}
    changed = await api.ask("PATCH", "/api/tenants/new", {"rateLimiting": {"requestsPerMinute": None}})
    assert changed.body["rateLimiting"] == UNLIMITED | {"burstLimit": 3}
    assert changed.body["disabled"] is True
    assert (await api.ask("GET", "/api/tenants/new")).body == changed.body
    listed = (await api.ask("GET", "/api/tenants?limit=2")).body
    assert [one["tenantId"] for one in listed["items"]] == ["new", "tenant-a"]
    rest = (await api.ask("GET", f"/api/tenants?limit=2&cursor={listed['next']}")).body
    assert ([one["tenantId"] for one in rest["items"]], rest["next"]) == (["tenant-b"], None)
    for name in ("nobody", "No", "a%2Fb"):
        assert (await api.ask("GET", f"/api/tenants/{name}")).code == "TENANT_NOT_FOUND"
        assert (await api.ask("PATCH", f"/api/tenants/{name}", {})).code == "TENANT_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"tenantId": "required"}),
        ({"tenantId": "UP"}, {"tenantId": "format"}),
        ({"tenantId": "a" * 64}, {"tenantId": "format"}),
        ({"tenantId": "-a"}, {"tenantId": "format"}),
        ({"tenantId": "*"}, {"tenantId": "format"}),
        ({"tenantId": "x", "disabled": "no"}, {"disabled": "type"}),
        ({"tenantid": "x"}, {"tenantId": "required", "tenantid": "unknown_field"}),
        (
            {"tenantId": "x", "rateLimiting": {"burstLimit": 0, "x": 1}},
            {"rateLimiting.burstLimit": "range", "rateLimiting.x": "unknown_field"},
        ),
    ],
)
async def test_bad_tenants_are_refused(api: Any, body: Any, faults: Any) -> None:
    """Every fault is named and nothing is made."""
    refused = await api.ask("POST", "/api/tenants", body)
    assert (refused.status, refused.code, refused.faults) == (400, "INVALID_REQUEST", faults)


async def test_models_are_registered_shown_listed_and_forgotten(api: Any, kserve: str, openai: str) -> None:
    """Type and readiness are found by asking; a model that nobody published can be forgotten."""
    made = await api.model("my-model", kserve + "/")
    assert (made.body["type"], made.body["protocol"], made.body["ready"]) == ("traditional", "kserve-v1", True)
    assert made.body["url"] == kserve
    llm = await api.model("my-llm", openai)
    assert (llm.body["type"], llm.body["protocol"], llm.body["ready"]) == ("openai", "openai", True)
    wrong = await api.model("other-llm", openai, modelId="other-llm")
    assert (wrong.body["ready"], wrong.body["message"]) == (False, "the server does not list a model named other-llm")
    again = await api.ask("POST", "/api/models", {"name": "my-llm", "tenantId": "tenant-a", "url": openai})
    assert (again.status, again.code) == (409, "MODEL_EXISTS")
    nobody = await api.ask("POST", "/api/models", {"name": "x", "tenantId": "nobody", "url": openai})
    assert (nobody.status, nobody.code, nobody.faults) == (400, "INVALID_TENANT", {"tenantId": "exists"})
    listed = (await api.ask("GET", "/api/models?tenantId=tenant-a")).body["items"]
    assert [one["name"] for one in listed] == ["my-llm", "my-model", "other-llm"]
    assert (await api.ask("GET", "/api/models?tenantId=tenant-b")).body["items"] == []
    assert (await api.ask("DELETE", "/api/models/my-llm")).status == 204
    assert (await api.ask("GET", "/api/models/my-llm")).code == "MODEL_NOT_FOUND"
    assert (await api.ask("DELETE", "/api/models/my-llm")).code == "MODEL_NOT_FOUND"


async def test_asking_again_finds_what_changed(api: Any, start_server: Any, store: Any) -> None:
    """GET of one model asks its server now; what changed is kept for the list, once."""
    ready = False

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"ready": ready})

    await api.model("slow", await start_server({"/v1/models/{name}": answer}))
    ready = True
    assert (await api.ask("GET", "/api/models")).body["items"][0]["ready"] is False
    assert (await api.ask("GET", "/api/models/slow")).body["ready"] is True
    assert (await api.ask("GET", "/api/models")).body["items"][0]["ready"] is True
    acts = store.xlen("tk:audit")
    assert (await api.ask("GET", "/api/models/slow")).body["ready"] is True
    assert store.xlen("tk:audit") == acts


@pytest.mark.parametrize("answer", [(500, {}), (404, {})], ids=["broken", "of no known protocol"])
async def test_a_server_that_tells_no_type_leaves_the_one_that_is_known(
    api: Any, start_server: Any, answer: tuple[int, Any]
) -> None:
    """While it is away its model is shown as it was, not ready and with the reason."""
    status, told = 200, {"object": "list", "data": [{"id": "my-llm"}]}

    async def answers(_request: web.Request) -> web.Response:
        return web.json_response(told, status=status)

    made = await api.model("my-llm", await start_server({"/v1/models": answers}))
    assert (made.body["type"], made.body["ready"]) == ("openai", True)
    await api.publish("my-llm")
    status, told = answer
    for shown in (
        (await api.ask("GET", "/api/models/my-llm")).body,
        (await api.ask("GET", "/api/models")).body["items"][0],
    ):
        assert (shown["type"], shown["protocol"], shown["ready"]) == ("openai", "openai", False)
        assert shown["message"]


async def test_a_type_given_at_registration_is_kept(api: Any, kserve: str) -> None:
    """What an operator said of the type holds when the model is published."""
    made = await api.model("my-model", kserve, type="openai")
    assert made.body["type"] == "openai"
    assert (await api.ask("GET", "/api/models/my-model")).body["type"] == "openai"
    assert (await api.publish("my-model")).body["modelType"] == "openai"


async def test_models_have_a_quota(api: Any, kserve: str) -> None:
    """A tenant has a bounded number of models; others' do not count."""
    api.allow(models=1)
    await api.model("one", kserve, "tenant-b")
    await api.model("one", kserve)
    full = await api.ask("POST", "/api/models", {"name": "two", "tenantId": "tenant-a", "url": kserve})
    assert (full.status, full.code) == (409, "QUOTA_REACHED")


async def test_a_gateway_takes_so_many_publications(api: Any, kserve: str) -> None:
    """One more is refused in words that say so, before the model is asked; what is published stays, and may change."""
    await api.model("one", kserve)
    await api.model("two", kserve, "tenant-b")
    api.publisher.most = 1
    assert (await api.publish("one")).status == 201
    full = await api.publish("two")
    assert (full.status, full.code) == (409, "QUOTA_REACHED")
    assert "the gateway takes 1 publications" in full.text
    api.publisher.most = 2
    assert (await api.publish("two")).status == 201


async def test_what_is_not_ones_own_does_not_exist(api: Any, kserve: str, secrets: Any) -> None:
    """A user of one tenant gets for another tenant's things the answers of things that are not."""
    await api.model("mine", kserve, "tenant-b")
    await api.model("theirs", kserve)
    await api.model("both", kserve)
    await api.model("both", kserve, "tenant-b")
    for name in ("mine", "theirs"):
        await api.publish(name)
    await _become(api, secrets, "tenant-b")
    for method, path, body in (
        ("GET", "/api/models/theirs", None),
        ("DELETE", "/api/models/theirs", None),
        ("GET", "/api/models/theirs/publish", None),
        ("GET", "/api/models/theirs/publish?tenantId=tenant-a", None),
        ("PUT", "/api/models/theirs/publish", {"config": {}}),
        ("POST", "/api/models/theirs/publish", {"config": {}}),
        ("DELETE", "/api/models/theirs/publish", None),
        ("POST", "/api/models/theirs/publish/rotate-key", None),
    ):
        answer = await api.ask(method, path, body)
        assert (answer.status, answer.code) == (404, "MODEL_NOT_FOUND"), (method, path)
    foreign, unknown = [await api.publish("theirs", tenantId=name) for name in ("tenant-a", "nobody")]
    assert foreign.text.replace(foreign.body["requestId"], "") == unknown.text.replace(unknown.body["requestId"], "")
    assert (await api.ask("GET", "/api/tenants/tenant-a")).code == "TENANT_NOT_FOUND"
    lists = [
        (await api.ask("GET", path)).body["items"] for path in ("/api/tenants", "/api/models", "/api/published-models")
    ]
    assert [[one["tenantId"] for one in items] for items in lists] == [["tenant-b"], ["tenant-b"] * 2, ["tenant-b"]]
    assert (await api.ask("GET", "/api/models/both")).body["tenantId"] == "tenant-b"
    assert (await api.show("mine")).status == 200


async def test_a_corrupt_record_harms_nobody_else(api: Any, kserve: str, store: Any) -> None:
    """Lists leave out what cannot be read, and everything else works."""
    await api.model("good", kserve)
    await api.model("bad", kserve)
    store.set("tk:rec:model:tenant-a/bad", b"{")
    listed = (await api.ask("GET", "/api/models")).body["items"]
    assert [one["name"] for one in listed] == ["good"]
    assert (await api.publish("good")).status == 201
