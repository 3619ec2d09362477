"""The audit stream by API: newest first, filtered, in pages, and nobody sees what was done to others' tenants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from admin.http import paging
from admin.people.sessions import make_token
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Role, UserRecord

AUDIT = "/api/audit"


async def _acts(api: Any, query: str = "") -> list[tuple[str, str]]:
    answer = await api.ask("GET", f"{AUDIT}?{query}")
    assert answer.status == 200, answer.text
    return [(act["action"], act["target"]) for act in answer.body["items"]]


@pytest.fixture
async def busy(api: Any) -> Any:
    """Two tenants, one of them changed twice."""
    for number in (1, 2):
        await api.ask("PATCH", "/api/tenants/tenant-b", {"rateLimiting": {"burstLimit": number}})
    return api


async def test_acts_are_told_newest_first(busy: Any) -> None:
    """Who, what, to what, when, under which request, and what changed."""
    answer = (await busy.ask("GET", AUDIT)).body
    assert [act["action"] for act in answer["items"]] == [
        "tenant.change",
        "tenant.change",
        "tenant.create",
        "tenant.create",
        "user.create",
    ]
    newest = answer["items"][0]
    assert (newest["actor"], newest["tenantId"], newest["target"]) == ("admin", "tenant-b", "tenant-b")
    assert newest["detail"] == {"rateLimiting.burstLimit": "1 -> 2"}
    assert newest["requestId"]
    assert answer["next"] is None


async def test_filters_narrow_the_list(busy: Any) -> None:
    """By tenant, actor, action and time; what matches nothing is an empty list."""
    assert await _acts(busy, "tenantId=tenant-a") == [("tenant.create", "tenant-a")]
    assert await _acts(busy, "actor=start") == [("user.create", "admin")]
    assert len(await _acts(busy, "action=tenant.change&tenantId=tenant-b")) == 2
    assert await _acts(busy, "actor=nobody") == []
    whole = (await busy.ask("GET", AUDIT)).body["items"]
    third = whole[2]["time"]
    since = {act["id"] for act in (await busy.ask("GET", f"{AUDIT}?since={third}")).body["items"]}
    until = {act["id"] for act in (await busy.ask("GET", f"{AUDIT}?until={third}")).body["items"]}
    assert whole[2]["id"] in since
    assert since | until == {act["id"] for act in whole}
    assert not since & until


@pytest.mark.parametrize(
    "query", ["until=1970-01-01T00:00:00Z", "until=0001-01-01T00:00:00%2B14:00", "cursor=0-0", "cursor=0000-0"]
)
async def test_before_the_first_of_all_times_nothing_was_done(busy: Any, query: str) -> None:
    """Any time that can be written is one, however far it is from ours."""
    assert await _acts(busy, query) == []
    assert len(await _acts(busy, "until=9999-12-31T23:59:59-14:00&since=0001-01-01T00:00:00%2B14:00")) > 0


@pytest.mark.parametrize(
    "query", ["since=yesterday", "until=2026-01-01T00:00:00", "cursor=x", "cursor=%D9%A1-%D9%A1", "limit=0", "who=me"]
)
async def test_what_makes_no_sense_is_refused(busy: Any, query: str) -> None:
    """With the parameter's name."""
    refused = await busy.ask("GET", f"{AUDIT}?{query}")
    assert (refused.status, list(refused.faults)) == (400, [query.partition("=")[0]])


async def test_pages_are_bounded_and_together_the_whole(busy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that may look at little still says where to go on; acts done meanwhile move nothing."""
    from admin.handlers import audit  # noqa: PLC0415  the module whose bound is lowered

    whole = [act["id"] for act in (await busy.ask("GET", AUDIT)).body["items"]]
    monkeypatch.setattr(audit, "PAGE", 1)
    monkeypatch.setattr(paging, "MAX_SCANNED", 2)
    found, cursor, requests = [], "", 0
    while cursor is not None:
        page = (await busy.ask("GET", f"{AUDIT}?limit=2&cursor={cursor}")).body
        found += [act["id"] for act in page["items"]]
        cursor, requests = page["next"], requests + 1
        await busy.ask("PATCH", "/api/tenants/tenant-a", {"rateLimiting": {"burstLimit": 1 + requests}})
    assert found == whole
    assert requests >= 3


async def test_others_acts_are_not_told(busy: Any) -> None:
    """A user of one tenant hears of it alone; users' own acts are an admin's to see."""
    user = UserRecord("bob", "", Role.VIEWER, ("tenant-a",), 0, 0)
    services = busy.services
    await services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "bob", "", ""))
    busy.token = make_token(user, services.secrets.current().jwt_key, services.clock.wall_ms()).text
    assert await _acts(busy) == [("tenant.create", "tenant-a")]
    assert await _acts(busy, "tenantId=tenant-b") == []
    assert await _acts(busy, f"since={datetime(2020, 1, 1, tzinfo=UTC).isoformat().replace('+', '%2B')}")
