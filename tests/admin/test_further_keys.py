"""Further keys: what they may call, their own limits, their end; made, shown, listed, changed, rotated, revoked."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from admin.people.sessions import make_token
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.ids import shard_of
from catalog.records import KeyRecord, Kind, Limits, Role, UserRecord

KEYS = "/api/keys"


@pytest.fixture
async def shared(api: Any, kserve: str) -> Any:
    """tenant-a has my-model for itself and shared for tenant-b too; tenant-b has its-model."""
    for name, tenant in (("my-model", "tenant-a"), ("shared", "tenant-a"), ("its-model", "tenant-b")):
        await api.model(name, kserve, tenant)
        await api.publish(name)
    await api.update("shared", authentication={"allowedTenants": ["tenant-b"]})
    return api


async def make(api: Any, tenant: str = "tenant-a", *, publications: Any = ("my-model",), **more: Any) -> Any:
    """Ask for a key."""
    body = {"tenantId": tenant, "name": "ci", "publications": list(publications), **more}
    return await api.ask("POST", KEYS, body)


async def one(api: Any, key_id: str) -> Any:
    """Show a key."""
    return (await api.ask("GET", f"{KEYS}/{key_id}")).body


async def record(api: Any, key_id: str) -> KeyRecord:
    """The key as it is stored."""
    found = await api.services.store.get(Kind.KEY, key_id)
    assert isinstance(found, KeyRecord)
    return found


async def test_a_key_is_made_and_its_text_is_shown_once(shared: Any) -> None:
    """The answer has the whole text, which works; later answers have it masked. What was not said is unlimited."""
    made = await make(shared)
    assert made.status == 201, made.text
    text, key_id = made.body["apiKey"], made.body["id"]
    assert made.headers["Location"] == f"{KEYS}/{key_id}"
    assert made.headers["Cache-Control"] == "no-store"
    assert (await shared.validate(text))["modelName"] == "my-model"
    shown = await shared.ask("GET", f"{KEYS}/{key_id}")
    assert shown.headers["ETag"] == made.headers["ETag"]
    assert shown.body == {**made.body, "apiKey": shown.body["apiKey"]}
    assert text.startswith(shown.body["apiKey"].rstrip("…"))
    assert text not in (await shared.ask("GET", KEYS)).text
    stored = await record(shared, key_id)
    assert (stored.limits, stored.expires_at_ms, stored.disabled) == (Limits(), None, False)
    assert shown.body["publicationKey"] is False


async def test_what_a_key_may_call_is_named_as_its_tenant_names_it(shared: Any) -> None:
    """Own models by name, others' as TENANT/NAME; both forms are taken, and one named twice counts once."""
    made = await make(shared, "tenant-b", publications=["its-model", "tenant-b/its-model", "tenant-a/shared"])
    assert made.body["publications"] == ["its-model", "tenant-a/shared"]
    assert len((await record(shared, made.body["id"])).publications) == 2


@pytest.mark.parametrize("name", ["tenant-a/my-model", "my-model", "tenant-c/shared", "none", "tenant-a/none"])
async def test_what_may_not_be_called_is_as_if_it_were_not(shared: Any, name: str) -> None:
    """A foreign model that does not allow the tenant, an unknown one, an unknown tenant's: the same fault."""
    refused = await make(shared, "tenant-b", publications=["its-model", name])
    assert (refused.status, refused.faults) == (400, {"publications[1]": "exists"})
    message = refused.body["errors"][0]["message"]
    assert message == f'there is no published model "{name}" that the key\'s tenant may call'


async def test_every_fault_is_named_at_once(shared: Any) -> None:
    """Limits, name, publications and expiry each have their rule."""
    refused = await make(shared, publications=[], name=" x", rateLimiting={"burstLimit": 0}, expiresAt="2030-01-01")
    assert set(refused.faults) == {"publications", "name", "rateLimiting.burstLimit", "expiresAt"}
    past = await make(shared, publications=["none"], expiresAt="2020-01-01T00:00:00Z")
    assert past.faults == {"publications[0]": "exists", "expiresAt": "range"}
    assert (await shared.ask("POST", KEYS, {"name": "x", "publications": ["my-model"]})).faults == {
        "tenantId": "required"
    }
    assert (await make(shared, "tenant-c")).code == "INVALID_TENANT"


@pytest.mark.parametrize("end", ["soon", "2030-01-01", "2030-01-01T00:00:00", "", "2030-13-01T00:00:00Z", True, [1]])
async def test_what_is_no_time_is_told_by_an_example(shared: Any, end: Any) -> None:
    """In our words, not the library's."""
    refused = await make(shared, expiresAt=end)
    assert (refused.status, [*refused.faults]) == (400, ["expiresAt"])
    assert refused.body["errors"][0]["message"] == (
        "must be a time with its zone, as RFC 3339 has it: 2027-01-31T00:00:00Z"
    )


async def test_limits_and_expiry_are_merged(shared: Any) -> None:
    """Absent keeps, null is unlimited or never; an end is kept to the millisecond."""
    ends = datetime.now(UTC).replace(microsecond=123_000) + timedelta(hours=1)
    limits = {"requestsPerMinute": 5, "burstLimit": 2}
    key_id = (await make(shared, rateLimiting=limits, expiresAt=ends.isoformat())).body["id"]
    path = f"{KEYS}/{key_id}"
    stored = await record(shared, key_id)
    assert (stored.limits, stored.expires_at_ms) == (Limits(burst=2, per_minute=5), int(ends.timestamp() * 1000))
    kept = (await shared.ask("PATCH", path, {"name": "new", "rateLimiting": {"burstLimit": None}})).body
    assert (kept["name"], kept["rateLimiting"]["requestsPerMinute"], kept["rateLimiting"]["burstLimit"]) == (
        "new",
        5,
        None,
    )
    assert datetime.fromisoformat(kept["expiresAt"]) == ends
    assert (await shared.ask("PATCH", path, {"expiresAt": None})).body["expiresAt"] is None
    assert (await shared.ask("PATCH", path, {"publications": ["shared"]})).body["publications"] == ["shared"]


async def test_a_disabled_key_is_refused_until_it_is_enabled(shared: Any) -> None:
    """At once, and its text stays."""
    made = (await make(shared)).body
    for disabled in (True, False):
        await shared.ask("PATCH", f"{KEYS}/{made['id']}", {"disabled": disabled})
        assert (await shared.validate(made["apiKey"]))["valid"] is not disabled


async def test_rotation_and_its_races(shared: Any) -> None:
    """As for a publication's own key: grace keeps one old text, without it the old one dies, the loser hears 409."""
    made = (await make(shared)).body
    path = f"{KEYS}/{made['id']}/rotate"
    second = (await shared.ask("POST", path, {"gracePeriodSeconds": 60})).body
    assert second["previousValidUntil"] is not None
    third = (await shared.ask("POST", path)).body
    texts = (made["apiKey"], second["apiKey"], third["apiKey"])
    assert [(await shared.validate(text))["valid"] for text in texts] == [False, False, True]
    told: Counter[int] = Counter()
    for _ in range(6):
        answers = await asyncio.gather(*(shared.ask("POST", path) for _ in range(3)))
        told.update(answer.status for answer in answers)
        valid = [(await shared.validate(a.body["apiKey"]))["valid"] for a in answers if a.status == 200]
        assert valid.count(True) == 1, "only the last text is good, and it was given to somebody"
    assert set(told) <= {200, 409}


async def test_a_revoked_key_is_gone_for_good(shared: Any, store: Any) -> None:
    """DELETE: its text is dead, its record and place in the index are gone; its usage and what is remembered end."""
    made = (await make(shared)).body
    store.hset(f"tk:usage:{{0}}:k:{made['id']}", "total", 7)
    assert (await one(shared, made["id"]))["usage"]["totalRequests"] == 7
    path = f"{KEYS}/{made['id']}"
    assert (await shared.ask("DELETE", path)).status == 204
    assert (await shared.validate(made["apiKey"]))["valid"] is False
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert (await shared.ask(method, path, body)).code == "KEY_NOT_FOUND"
    left = [f"tk:gone:key:{made['id']}", f"tk:usage:{{0}}:k:{made['id']}"]
    assert sorted(name.decode() for name in store.keys("*") if made["id"].encode() in name) == left
    assert all(396 * 86_400 < store.ttl(name) <= 397 * 86_400 for name in left)


async def test_a_publications_own_key(shared: Any) -> None:
    """It is listed, may be limited and disabled, keeps its publication and cannot be revoked alone."""
    key_id = (await shared.show("my-model")).body["keyId"]
    path = f"{KEYS}/{key_id}"
    assert (await one(shared, key_id))["publicationKey"] is True
    changed = await shared.ask(
        "PATCH", path, {"rateLimiting": {"burstLimit": 1}, "publications": ["my-model", "shared"]}
    )
    assert (changed.status, changed.body["publications"]) == (200, ["my-model", "shared"])
    refused = await shared.ask("PATCH", path, {"publications": ["shared"]})
    assert refused.faults == {"publications": "fixed"}
    refused = await shared.ask("DELETE", path)
    assert (refused.status, refused.code) == (409, "PUBLICATION_KEY")
    assert "unpublish" in refused.body["detail"]


async def test_a_republished_name_does_not_revive_keys(shared: Any) -> None:
    """Unpublished: its further keys open it no more, and not the next publication of that name either."""
    only = (await make(shared)).body
    both = (await make(shared, publications=["my-model", "shared"])).body
    await shared.ask("DELETE", "/api/models/my-model/publish")
    assert (await shared.validate(only["apiKey"]))["valid"] is False
    assert (await shared.validate(both["apiKey"]))["modelName"] == "shared"
    await shared.publish("my-model")
    assert (await shared.validate(only["apiKey"]))["valid"] is False
    assert (await one(shared, only["id"]))["publications"] == []
    assert (await one(shared, both["id"]))["publications"] == ["shared"]
    await shared.ask("PATCH", f"{KEYS}/{only['id']}", {"publications": ["my-model"]})
    assert (await shared.validate(only["apiKey"]))["valid"] is True


async def test_a_tenant_no_longer_allowed_has_no_way_in(shared: Any) -> None:
    """Removed from allowedTenants, a tenant's key opens the model no more and does not show it."""
    made = (await make(shared, "tenant-b", publications=["tenant-a/shared"])).body
    assert (await shared.validate(made["apiKey"]))["valid"] is True
    await shared.update("shared", authentication={"allowedTenants": []})
    assert (await shared.validate(made["apiKey"]))["valid"] is False
    assert (await one(shared, made["id"]))["publications"] == []


async def test_keys_are_listed_by_tenant_and_by_model(shared: Any) -> None:
    """All the caller's, a tenant's, a model's; in pages that together are all of them."""
    made = [(await make(shared)).body["id"] for _ in range(3)]
    foreign = (await make(shared, "tenant-b", publications=["tenant-a/shared"])).body["id"]

    async def ids(query: str) -> set[str]:
        return {item["id"] for item in (await shared.ask("GET", f"{KEYS}?{query}")).body["items"]}

    own = {model: (await shared.show(model)).body["keyId"] for model in ("my-model", "shared", "its-model")}
    assert await ids("") == {*made, foreign, *own.values()}
    assert await ids("tenantId=tenant-a") == {*made, own["my-model"], own["shared"]}
    assert await ids("model=my-model") == {*made, own["my-model"]}
    assert await ids("model=tenant-a/shared") == {foreign, own["shared"]}
    assert await ids("model=shared&tenantId=tenant-b") == {foreign}
    paged, cursor = [], ""
    while cursor is not None:
        answer = (await shared.ask("GET", f"{KEYS}?tenantId=tenant-a&limit=2&cursor={cursor}")).body
        paged += [item["id"] for item in answer["items"]]
        cursor = answer["next"]
    assert paged == sorted({*made, own["my-model"], own["shared"]})
    assert (await shared.ask("GET", f"{KEYS}?model=none")).code == "MODEL_NOT_FOUND"
    assert (await shared.ask("GET", f"{KEYS}?cursor=x")).faults == {"cursor": "format"}


async def test_a_tenant_has_so_many_keys_and_no_more(shared: Any) -> None:
    """Of many made at once, as many as there is room for; the publications' own are counted."""
    shared.allow(keys=5)
    answers = await asyncio.gather(*(make(shared) for _ in range(6)))
    told = Counter(answer.body.get("code", "made") for answer in answers)
    assert told == {"made": 3, "QUOTA_REACHED": 3}


async def test_a_tenant_left_out_is_the_default_one(shared: Any) -> None:
    """An admin of several tenants must name one, as long as none is called default."""
    body = {"name": "mine", "publications": ["tenant-a/shared"]}
    assert (await shared.ask("POST", KEYS, body)).faults == {"tenantId": "required"}
    await shared.tenant("default")
    await shared.update("shared", tenantId="tenant-a", authentication={"allowedTenants": ["tenant-b", "default"]})
    made = await shared.ask("POST", KEYS, body)
    assert (made.status, made.body["tenantId"]) == (201, "default"), made.text


async def test_a_user_sees_the_keys_of_his_tenants_only(shared: Any) -> None:
    """Any other key is answered like one that is not there; his only tenant need not be named."""
    foreign = (await make(shared)).body["id"]
    user = UserRecord("bob", "", Role.OPERATOR, ("tenant-b",), 0, 0)
    await shared.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "bob", "", ""))
    services = shared.services
    shared.token = make_token(user, services.mint.secrets.jwt_key, services.clock.wall_ms()).text
    own = await shared.ask("POST", KEYS, {"name": "mine", "publications": ["its-model", "tenant-a/shared"]})
    assert (own.status, own.body["tenantId"]) == (201, "tenant-b")
    for method, path, body in (
        ("GET", f"{KEYS}/{foreign}", None),
        ("PATCH", f"{KEYS}/{foreign}", {"disabled": True}),
        ("DELETE", f"{KEYS}/{foreign}", None),
        ("POST", f"{KEYS}/{foreign}/rotate", None),
    ):
        refused = await shared.ask(method, path, body)
        unknown = await shared.ask(method, path.replace(foreign, "000" + "a" * 16), body)
        assert (refused.status, refused.code) == (unknown.status, unknown.code) == (404, "KEY_NOT_FOUND")
    listed = (await shared.ask("GET", KEYS)).body["items"]
    assert {item["tenantId"] for item in listed} == {"tenant-b"}
    assert (await make(shared, "tenant-a")).code == "INVALID_TENANT"


async def test_budgets_in_different_cells_are_refused_when_it_is_configured(shared: Any) -> None:
    """CROSS_CELL for a key whose tenant is counted in another cell than the model's, and for allowing such a tenant."""
    cells = next(n for n in range(2, 64) if shard_of("tenant-a") % n != shard_of("tenant-b") % n)
    object.__setattr__(shared.services, "cells", cells)
    refused = await make(shared, "tenant-b", publications=["its-model", "tenant-a/shared"])
    assert refused.faults == {"publications[1]": "cross_cell"}
    refused = await shared.update("my-model", authentication={"allowedTenants": ["tenant-a", "tenant-b"]})
    assert refused.faults == {"config.authentication.allowedTenants[1]": "cross_cell"}
    assert (await make(shared, "tenant-b", publications=["its-model"])).status == 201


async def test_changes_of_one_key_at_once_are_all_kept(shared: Any) -> None:
    """A PATCH merges into the key as it is at the write."""
    path = f"{KEYS}/{(await make(shared)).body['id']}"
    changes: list[dict[str, Any]] = [{"name": "n"}, {"publications": ["shared"]}, {"disabled": True}]
    changes += [{"rateLimiting": {"burstLimit": 3}}, {"rateLimiting": {"requestsPerHour": 4}}]
    answers = await asyncio.gather(*(shared.ask("PATCH", path, change) for change in changes))
    assert {answer.status for answer in answers} == {200}
    shown = (await shared.ask("GET", path)).body
    assert (shown["name"], shown["publications"], shown["disabled"]) == ("n", ["shared"], True)
    assert (shown["rateLimiting"]["burstLimit"], shown["rateLimiting"]["requestsPerHour"]) == (3, 4)


async def test_an_old_tag_changes_revokes_and_rotates_nothing(shared: Any) -> None:
    """If-Match on a key, as everywhere."""
    made = await make(shared)
    path, old = f"{KEYS}/{made.body['id']}", {"If-Match": made.headers["ETag"]}
    assert (await shared.ask("PATCH", path, {"name": "n"}, headers=old)).status == 200
    for method, where, body in (
        ("PATCH", path, {"name": "m"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate", None),
    ):
        assert (await shared.ask(method, where, body, headers=old)).status == 412
    assert (await record(shared, made.body["id"])).name == "n"
    assert (await shared.validate(made.body["apiKey"]))["valid"] is True
