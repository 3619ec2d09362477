"""How fast the API may be used, and that those who may not use it faster stop nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from admin.http.openapi import document
from admin.http.routes import ROUTES
from admin.people.pace import Paces, UserCalls
from admin.people.permissions import Access
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Kind, ModelRecord, UserRecord
from catalog.store.store import Conflict

MINUTE_MS = 60_000


def test_any_minute_holds_as_many_calls_as_may_be() -> None:
    """Exactly: one fits again when the oldest is a minute old, and a refused one is not counted."""
    calls = UserCalls(3)
    assert [calls.count("ann", now_ms).remaining for now_ms in (0, 10, 20)] == [2, 1, 0]
    refused = calls.count("ann", 30)
    assert (refused.remaining, refused.wait_ms, refused.reset_s) == (0, MINUTE_MS - 30, 60)
    assert calls.count("bob", 30).wait_ms == 0
    assert calls.count("ann", MINUTE_MS - 1).wait_ms == 1
    assert [calls.count("ann", MINUTE_MS + now_ms).wait_ms for now_ms in (0, 5, 10)] == [0, 5, 0]


def test_only_who_called_in_the_last_minute_is_remembered() -> None:
    """However many users there are."""
    calls = UserCalls(3)
    for number in range(1_000):
        calls.count(f"user-{number}", number)
    assert len(calls) == 1_000
    calls.count("user-7", 500)
    calls.count("one", MINUTE_MS + 499)
    assert len(calls) == 502
    calls.count("one", 3 * MINUTE_MS)
    assert len(calls) == 1


async def test_a_users_calls_are_bounded(start_api: Any) -> None:
    """Reads too; every answer says how many are left, a refusal when to come again, and others are not concerned."""
    api = await start_api(paces=Paces(4, 100))
    await api.tenant("tenant-a")
    await api.user("ann", "viewer", "tenant-a")
    admin = api.token
    await api.become("ann")
    for left in (3, 2, 1, 0):
        answer = await api.ask("GET", "/api/users/me" if left % 2 else "/api/keys/none")
        assert answer.headers["RateLimit"] == f'"user-minute";r={left};t=60'
        assert answer.headers["RateLimit-Policy"] == '"user-minute";q=4;w=60, "tenant-writes-minute";q=100;w=60'
    refused = await api.ask("GET", "/api/users/me")
    assert (refused.status, refused.code) == (429, "TOO_MANY_REQUESTS")
    assert refused.headers["RateLimit"].startswith('"user-minute";r=0;t=')
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "4 calls" in refused.body["detail"]
    api.token = admin
    assert (await api.ask("GET", "/api/users/me")).status == 200
    assert "RateLimit" not in (await api.ask("GET", "/healthz")).headers


@pytest.fixture
async def two(start_api: Any, kserve: str) -> Any:
    """Two admins of one store, a key in each of two tenants, and an operator of both."""
    first, second = [await start_api(paces=Paces(1_000, 5)) for _ in range(2)]
    for name in ("tenant-a", "tenant-b"):
        await first.tenant(name)
    await first.model("iris", kserve)
    published = await first.publish("iris", authentication={"allowedTenants": ["tenant-b"]})
    assert published.status == 201
    first.keys = {}
    for name in ("tenant-a", "tenant-b"):
        body = {"tenantId": name, "name": "one", "publications": ["tenant-a/iris"]}
        first.keys[name] = (await first.ask("POST", "/api/keys", body)).body["id"]
    await first.user("ann", "operator", "tenant-a", "tenant-b")
    return first, second


async def test_writes_in_a_tenant_are_bounded_over_all_admins(two: Any, store: Any) -> None:
    """Whoever changes a key in a loop makes so many epochs a minute and no more; admins and other tenants go on."""
    first, second = two
    admin = first.token
    await first.become("ann")
    second.token = first.token

    async def change(api: Any, tenant: str, name: str) -> Any:
        return await api.ask("PATCH", f"/api/keys/{first.keys[tenant]}", {"name": name})

    done = [(await change(api, "tenant-a", f"n{n}")).status for n, api in enumerate((first, second) * 2)]
    assert done == [200] * 4
    answers = await asyncio.gather(*(change(api, "tenant-a", f"more-{n}") for n, api in enumerate((first, second) * 5)))
    assert sorted(answer.status for answer in answers) == [200] + [429] * 9
    before = store.get("tk:epoch:{0}")
    refused = await change(second, "tenant-a", "again")
    assert (refused.status, refused.code) == (429, "TOO_MANY_REQUESTS")
    assert refused.headers["RateLimit"] == f'"tenant-writes-minute";r=0;t={refused.headers["Retry-After"]}'
    assert store.get("tk:epoch:{0}") == before
    assert (await first.ask("GET", f"/api/keys/{first.keys['tenant-a']}")).status == 200
    assert (await change(first, "tenant-b", "other")).status == 200
    first.token = admin
    assert (await change(first, "tenant-a", "by an admin")).status == 200


async def test_who_only_looks_is_not_held_to_the_writes(two: Any) -> None:
    """A model whose server says something else now is shown as it is, also in a tenant that has had its writes."""
    first, _ = two
    services = first.services
    found = await services.store.get(Kind.MODEL, "tenant-a/iris")
    assert isinstance(found, ModelRecord)
    audit = Audit(Recordless.START, "test", "", "tenant-a", "")
    await services.store.commit([Put(structs.replace(found, ready=False), found.version)], audit=audit)
    await first.become("ann")
    for n in range(5):
        changed = await first.ask("PATCH", f"/api/keys/{first.keys['tenant-a']}", {"name": f"n{n}"})
        assert changed.status == 200
    looked = await first.ask("GET", "/api/models/iris")
    assert (looked.status, looked.body["ready"]) == (200, True)
    kept = await services.store.get(Kind.MODEL, "tenant-a/iris")
    assert kept == structs.replace(found, ready=False, version=found.version + 1)


async def test_a_write_that_did_not_happen_is_not_counted(two: Any) -> None:
    """Who meets others' changes is not held to be in a hurry."""
    services = two[0].services
    committer, known = services.committer.paced(services.writes), await services.store.get(Kind.USER, "ann")
    assert isinstance(known, UserRecord)
    for _ in range(10):
        with pytest.raises(Conflict):
            await committer.commit([Put(known, 0)], Audit(Recordless.START, "test", "", "tenant-a", ""))
    await two[0].become("ann")
    answer = await two[0].ask("PATCH", f"/api/keys/{two[0].keys['tenant-a']}", {"name": "late"})
    assert answer.status == 200


def test_the_document_says_so() -> None:
    """Of every call that needs a login: 429, and the headers."""
    paths = document(ROUTES)["paths"]
    for route in ROUTES:
        responses = paths[route.path][route.method.lower()]["responses"]
        if route.access is not Access.OPEN:
            assert "TOO_MANY_REQUESTS" in responses["429"]["description"]
            assert all({"RateLimit", "RateLimit-Policy"} <= one["headers"].keys() for one in responses.values())
