"""Audit, document, health, metrics: what operators and machines read."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import redis.asyncio
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from admin.http.app import create_app
from admin.http.openapi import document
from admin.http.problems import Code, meaning
from admin.http.routes import ROUTES
from admin.watching import LOOK_S
from catalog.store.store import CatalogStore
from runtime.lifecycle import running
from runtime.version import VERSION


async def test_every_act_is_in_the_audit_stream(api: Any, kserve: str) -> None:
    """Who did what to what, when, under which request, and what changed: one entry an act, and no secret."""
    await api.model("my-model", kserve)
    await api.publish("my-model")
    limits, tokens = (
        {"requestsPerMinute": 200, "burstLimit": None},
        {"contextTokens": 4_096, "reservation": "adaptive", "clampUsage": True},
    )
    await api.update("my-model", rateLimiting=limits, tokens=tokens, allowedEndpoints=["b", "a"], allowBackground=True)
    rotated = await api.ask("POST", "/api/models/my-model/publish/rotate-key", headers={"X-Request-Id": "my-request"})
    await api.ask("DELETE", "/api/models/my-model/publish")
    await api.ask("PATCH", "/api/tenants/tenant-a", {"disabled": True})
    await api.ask("DELETE", "/api/models/my-model")
    entries = (await api.services.store.audit_page())[::-1]
    assert [(entry.audit.actor, entry.audit.action, entry.audit.target) for entry in entries] == [
        ("start", "user.create", "admin"),
        ("admin", "tenant.create", "tenant-a"),
        ("admin", "tenant.create", "tenant-b"),
        ("admin", "model.register", "tenant-a/my-model"),
        ("admin", "publication.create", "tenant-a/my-model"),
        ("admin", "publication.update", "tenant-a/my-model"),
        ("admin", "key.rotate", "tenant-a/my-model"),
        ("admin", "publication.delete", "tenant-a/my-model"),
        ("admin", "tenant.change", "tenant-a"),
        ("admin", "model.delete", "tenant-a/my-model"),
    ]
    told = {entry.audit.action: entry.audit for entry in entries}
    assert told["publication.update"].detail == {
        "rateLimiting.requestsPerMinute": "100 -> 200",
        "rateLimiting.burstLimit": "10 -> unlimited",
        "tokens.contextTokens": "8192 -> 4096",
        "tokens.contextTokensFrom": "default -> setting",
        "tokens.reservation": "strict -> adaptive",
        "tokens.clampUsage": "false -> true",
        "allowedEndpoints": " -> a b",
        "allowBackground": "false -> true",
    }
    assert told["publication.update"].tenant == "tenant-a"
    assert told["tenant.change"].detail == {"disabled": "false -> true"}
    assert told["key.rotate"].request_id == "my-request" == rotated.headers["X-Request-Id"]
    now_ms = await api.services.store.now_ms()
    assert all(0 <= now_ms - entry.time_ms < 60_000 for entry in entries)


async def test_refused_acts_are_not_recorded(api: Any, kserve: str, store: Any) -> None:
    """What was not done is not in the stream."""
    await api.model("my-model", kserve)
    await api.publish("my-model")
    acts = store.xlen("tk:audit")
    await api.publish("my-model")
    await api.update("my-model", externalPath="x")
    await api.ask("DELETE", "/api/models/my-model")
    await api.ask("POST", "/api/tenants", {"tenantId": "tenant-a"})
    assert store.xlen("tk:audit") == acts


async def test_the_document_is_openapi_and_has_every_route(api: Any) -> None:
    """/openapi.json is valid OpenAPI 3.1 and describes exactly the calls the server has."""
    described = (await api.ask("GET", "/openapi.json")).body
    assert described["info"]["version"] == VERSION
    OpenAPIV31SpecValidator(described).validate()
    told = {(method.upper(), path) for path, calls in described["paths"].items() for method in calls}
    router = create_app(api.services).router
    served = {(route.method, route.resource.canonical) for route in router.routes() if route.method != "HEAD"}
    assert told == served
    operations = [call["operationId"] for calls in described["paths"].values() for call in calls.values()]
    assert len(set(operations)) == len(operations)


async def test_answers_are_as_the_document_says(api: Any, kserve: str, openai: str) -> None:
    """Real answers and problems validate against the schemas of the document."""
    described = document(ROUTES)
    await api.model("my-model", kserve)
    await api.model("my-llm", openai)
    calls = [
        ("post", "/api/models/{m}/publish", await api.publish("my-model")),
        ("put", "/api/models/{m}/publish", await api.update("my-model", metadata={"a": "b"})),
        ("get", "/api/models/{m}/publish", await api.show("my-model")),
        ("get", "/api/models/{m}", await api.ask("GET", "/api/models/my-llm")),
        ("get", "/api/models", await api.ask("GET", "/api/models")),
        ("get", "/api/tenants", await api.ask("GET", "/api/tenants")),
        ("get", "/api/published-models", await api.ask("GET", "/api/published-models")),
        (
            "post",
            "/api/models/{m}/publish/rotate-key",
            await api.ask("POST", "/api/models/my-model/publish/rotate-key"),
        ),
        ("post", "/api/validate-api-key", await api.ask("POST", "/api/validate-api-key", {"apiKey": "x"})),
        ("post", "/api/admin/login", await api.login()),
        ("post", "/api/admin/login", await api.login("admin", "wrong")),
        ("post", "/api/models/{m}/publish", await api.publish("my-model", externalPath="x")),
        ("delete", "/api/models/{m}", await api.ask("DELETE", "/api/models/my-model")),
        ("get", "/readyz", await api.ask("GET", "/readyz")),
    ]
    for method, path, answer in calls:
        response = described["paths"][path][method]["responses"][str(answer.status)]
        ((_, content),) = response["content"].items()
        schema = {**content["schema"], "components": described["components"]}
        Draft202012Validator(schema).validate(answer.body)


def test_every_code_has_a_meaning_and_a_place() -> None:
    """Each code has status and title, and is either said by some call of the table or one that any call may say."""
    for code in Code:
        assert meaning(code).status >= 400
    of_calls = {code for route in ROUTES for code in route.refusals}
    of_calls |= {Code.PRECONDITION_FAILED for route in ROUTES if route.conditional}
    anywhere = {Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED, Code.UNAUTHENTICATED, Code.FORBIDDEN}
    anywhere |= {Code.STORE_UNAVAILABLE, Code.INTERNAL}
    anywhere |= {Code.CORRUPT_RECORD}
    assert set(Code) == of_calls | anywhere


async def test_the_process_tells_how_it_is(api: Any) -> None:
    """Alive; ready with the store's persistence; metrics by route, never by name."""
    assert (await api.ask("GET", "/healthz")).body == {"status": "alive"}
    ready = await api.told("/readyz")
    assert (ready.status, ready.body["ready"]) == (200, True)
    assert ready.body["store"] == {
        "appendonly": False,
        "appendfsync": "everysec",
        "maxmemory_policy": "noeviction",
        "no_appendfsync_on_rewrite": False,
    }
    assert ready.body["problems"] == []
    (doubt,) = ready.body["warnings"]
    assert doubt["code"] == "store_not_durable"
    assert "appendonly no, appendfsync everysec" in doubt["problem"]
    assert "appendfsync always" in doubt["advice"]
    await api.ask("GET", "/api/models/some-model/publish")
    await api.ask("GET", "/no/such/path")
    metrics = (await api.told("/metrics")).text
    assert 'tollkeeper_admin_requests_total{method="GET",route="/api/models/{m}/publish",status="404"} 1.0' in metrics
    assert 'route="none"' in metrics
    assert 'tollkeeper_admin_acts_total{action="tenant.create",outcome="committed"} 2.0' in metrics
    assert not re.search("some-model|/no/such", metrics)


async def test_the_apis_port_tells_only_whether_it_is_ready(api: Any) -> None:
    """Neither metrics nor what is wrong: that is told at another address, to whoever runs the process."""
    assert (await api.ask("GET", "/metrics")).status == 404
    assert ((await api.told("/readyz")).status, (await api.ask("GET", "/readyz")).body) == (200, {"ready": True})


async def test_a_question_how_it_is_costs_the_store_nothing(api: Any, store: Any) -> None:
    """However often anybody asks: one task looks, and what it found is told."""
    await api.services.readiness.look()
    before = store.info("stats")["total_commands_processed"]
    for _ in range(50):
        assert (await api.ask("GET", "/readyz")).status == 200
        for page in ("/readyz", "/metrics", "/healthz"):
            async with api.session.get(api.face_url + page) as answer:
                assert answer.status == 200
    asked_ourselves = 1
    assert store.info("stats")["total_commands_processed"] - before <= asked_ourselves


async def test_what_is_told_is_a_second_old_at_most(api: Any, store: Any) -> None:
    """The task that looks finds out by itself that the store's settings changed."""
    async with running(api.services.readiness.keep(), name="readiness-watch"):
        store.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with asyncio.timeout(10 * LOOK_S):
                watch = api.services.readiness
                while not any(one.code == "store_evicts" for one in watch.readiness().warnings):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S / 10)  # the watch has nobody whom it tells
        finally:
            store.config_set("maxmemory-policy", "noeviction")


async def test_without_a_store_the_process_says_so(start_api: Any, tmp_path: Any) -> None:
    """No store: not ready, every call that needs it 503 with Retry-After, and still no traceback."""
    async with redis.asyncio.Redis(unix_socket_path=str(tmp_path / "none.sock")) as gone:
        api = await start_api(CatalogStore(gone))
        ready = await api.told("/readyz")
        assert (await api.ask("GET", "/readyz")).body == {"ready": False}
        assert (ready.status, ready.body["ready"], ready.body["warnings"]) == (503, False, [])
        (problem,) = ready.body["problems"]
        assert problem["code"] == "store_away"
        assert "the store cannot be reached" in problem["problem"]
        assert "--redis-url" in problem["advice"]
        assert (await api.ask("GET", "/healthz")).status == 200
        refused = await api.ask("GET", "/api/models/my-model/publish")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "STORE_UNAVAILABLE", "1")
        assert refused.body["detail"] == "nothing was changed"


async def test_a_fault_of_ours_tells_nothing_but_its_request(api: Any, monkeypatch: Any, caplog: Any) -> None:
    """An unexpected exception is a 500 problem with the request's id; the text of the exception stays in the log."""

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("inner secret")

    monkeypatch.setattr(type(api.services.store), "ids", broken)
    answer = await api.ask("GET", "/api/tenants")
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert "inner secret" not in json.dumps(answer.body)
    assert "inner secret" in caplog.text


async def test_no_answer_tells_the_softwares_versions(api: Any) -> None:
    """Whatever is asked, Server is the product's name; also where the library itself refuses."""
    asked = [
        await api.ask("GET", "/healthz"),
        await api.told("/metrics"),
        await api.ask("GET", "/nowhere"),
        await api.ask("POST", "/healthz"),
        await api.ask("POST", "/api/models", headers={"Expect": "the impossible"}),
    ]
    assert [answer.status for answer in asked] == [200, 200, 404, 405, 417]
    assert {answer.headers["Server"] for answer in asked} == {"tollkeeper"}
    assert {answer.headers["X-Content-Type-Options"] for answer in asked} == {"nosniff"}
