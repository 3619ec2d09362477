"""A change that changes nothing is answered with what is there, and nothing is written: no record, no act."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.actors import Recordless
from catalog.changes import Audit, Delete
from catalog.records import Kind, PublicationRecord, server_of

TENANT = "/api/tenants/tenant-a"
MODEL = "/api/models/my-model?tenantId=tenant-a"
PUBLICATION = "/api/models/my-model/publish?tenantId=tenant-a"
USER = "/api/users/ann"
SERVICE = "/api/service-accounts/cron"

AUDIT = Audit(Recordless.START, "server.delete", "any", "tenant-a", "r")


@pytest.fixture
async def things(api: Any, kserve: str) -> Any:
    """One of each that can be changed: method, path, a change that is none, and one that is."""
    await api.model("my-model", kserve)
    assert (await api.publish("my-model", rateLimiting={"requestsPerMinute": 7})).status == 201
    key = await api.ask("POST", "/api/keys", {"tenantId": "tenant-a", "name": "ci", "publications": ["my-model"]})
    await api.user("ann", "viewer", "tenant-a")
    await api.service("cron", "viewer", "tenant-a")
    minute = {name: {"config": {"rateLimiting": {"requestsPerMinute": name}}} for name in (7, 8)}
    same = {"name": "ci", "publications": ["my-model"], "expiresAt": None}
    return {
        "tenant": ("PATCH", TENANT, {"disabled": False, "hosts": []}, {"rateLimiting": {"burstLimit": 3}}),
        "model": ("PATCH", MODEL, {"url": kserve, "modelId": "my-model"}, {"modelId": "other"}),
        "publication": ("PUT", PUBLICATION, minute[7], minute[8]),
        "key": ("PATCH", f"/api/keys/{key.body['id']}", same, {"disabled": True}),
        "user": ("PATCH", USER, {"role": "viewer", "tenants": ["tenant-a"]}, {"disabled": True}),
        "service": ("PATCH", SERVICE, {"role": "viewer", "disabled": False}, {"description": "new"}),
    }


async def acts(api: Any) -> int:
    """How many acts the audit stream has."""
    return len((await api.ask("GET", "/api/audit?limit=200")).body["items"])


@pytest.mark.parametrize("kind", ["tenant", "model", "publication", "key", "user", "service"])
async def test_what_changes_nothing_writes_nothing(api: Any, things: Any, kind: str) -> None:
    """Empty, or of equal values; If-Match is held all the same, and a change that is one is written."""
    method, path, equal, other = things[kind]
    before, told = await api.ask("GET", path), await acts(api)
    for body in ({}, equal):
        answer = await api.ask(method, path, body)
        assert answer.status == 200, answer.text
        assert answer.headers["ETag"] == before.headers["ETag"]
        assert answer.body["updatedAt"] == before.body["updatedAt"]
        stale = await api.ask(method, path, body, headers={"If-Match": '"0-1"'})
        assert (stale.status, stale.code) == (412, "PRECONDITION_FAILED")
    assert await acts(api) == told
    if kind != "model":
        changed = await api.ask(method, path, other)
        assert (changed.status, changed.headers["ETag"] != before.headers["ETag"]) == (200, True), changed.text
        assert await acts(api) == told + 1


async def test_a_publication_of_the_release_before_is_renewed(api: Any, things: Any, kserve: str) -> None:
    """One that stands in no server's record enters it by a PUT of nothing, once."""
    method, path, *_ = things["publication"]
    store = api.services.store
    server = server_of(kserve)
    assert server is not None
    stored = await store.get(Kind.SERVER, server)
    assert stored is not None
    await store.commit([Delete(Kind.SERVER, server, stored.version)], audit=AUDIT)
    told = await acts(api)
    for _ in range(2):
        assert (await api.ask(method, path, {})).status == 200
    renewed = await store.get(Kind.SERVER, server)
    (uid,) = renewed.callers
    assert isinstance(await store.get(Kind.PUBLICATION, uid), PublicationRecord)
    assert await acts(api) == told + 1
