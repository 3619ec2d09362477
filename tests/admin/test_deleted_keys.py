"""What stays of deleted keys, for how long, and that a tenant's name that is used again shows nothing of before."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from catalog.records import KeyRecord, Kind
from catalog.tombstones import KEPT_S

KEYS = "/api/keys"
DELETED = "/api/deleted-keys"
WORDS = {"description": "nightly batch", "owner": "Ann", "labels": {"team": "red"}}


@pytest.fixture
async def shared(api: Any, kserve: str) -> Any:
    """tenant-a has a published model."""
    await api.model("my-model", kserve)
    await api.publish("my-model")
    return api


async def make(api: Any, **more: Any) -> Any:
    """Make a key; returns it as it is shown once."""
    made = await api.ask("POST", KEYS, {"tenantId": "tenant-a", "name": "ci", "publications": ["my-model"], **more})
    assert made.status == 201, made.text
    return made.body


async def used(api: Any, store: Any, key_id: str, calls: int = 9) -> None:
    """Count calls of a key, the last one now, as gates do."""
    now_ms = await api.services.store.now_ms()
    store.hset(f"tk:usage:{{0}}:k:{key_id}", mapping={"total": calls, "last_ms": now_ms, "tokens": 5})


async def end(api: Any, key_id: str) -> None:
    """Delete a key."""
    assert (await api.ask("DELETE", f"{KEYS}/{key_id}")).status == 204


async def listed(api: Any, **query: str) -> Any:
    """The deleted keys of tenant-a."""
    answer = await api.ask("GET", DELETED, params={"tenantId": "tenant-a", **query})
    assert answer.status == 200, answer.text
    return answer.body


async def test_a_deleted_key_is_remembered_with_its_usage(shared: Any, store: Any) -> None:
    """Whose it was, what for, who ended it, how much it was used; nothing of its texts, and it opens nothing."""
    made = await make(shared, **WORDS)
    await used(shared, store, made["id"])
    record = await shared.services.store.get(Kind.KEY, made["id"])
    assert isinstance(record, KeyRecord)
    await end(shared, made["id"])
    (one,) = (await listed(shared, usage="true"))["items"]
    assert (
        WORDS | {"id": made["id"], "name": "ci", "deletedBy": "admin", "tenantId": "tenant-a"}
    ).items() <= one.items()
    assert (one["usage"]["totalRequests"], one["createdAt"]) == (9, made["createdAt"])
    assert one["deletedAt"] > one["createdAt"]
    assert (await listed(shared))["items"][0]["usage"] is None
    assert (await shared.ask("GET", f"{KEYS}/{made['id']}")).code == "KEY_NOT_FOUND"
    assert (await shared.validate(made["apiKey"]))["valid"] is False
    (found,) = (await shared.ask("POST", f"{KEYS}/find", {"apiKey": made["apiKey"]})).body["items"]
    assert (found["key"], found["text"], found["deleted"]["id"]) == (None, "former", made["id"])
    for masked in (f"tk_{made['id']}", f"tk_{made['id']}_a…"):  # with the whole id, it is known which
        (found,) = (await shared.ask("POST", f"{KEYS}/find", {"apiKey": masked})).body["items"]
        assert (found["key"], found["text"], found["deleted"]["id"]) == (None, "masked", made["id"])
    assert (await shared.ask("POST", f"{KEYS}/find", {"apiKey": made["apiKey"][:20]})).status == 404
    kept = store.get(f"tk:gone:key:{made['id']}")
    assert record.current.hash.encode() not in kept
    assert made["apiKey"][23:] not in kept.decode()


async def test_it_is_remembered_as_long_as_usage_is(shared: Any, store: Any) -> None:
    """Thirteen months by the store's clock, the list of them too; then it is gone, and the list goes on without it."""
    made = await make(shared)
    await used(shared, store, made["id"])
    await end(shared, made["id"])
    for name in (f"tk:gone:key:{made['id']}", "tk:gone:keys:tenant-a", f"tk:usage:{{0}}:k:{made['id']}"):
        assert KEPT_S - 60 <= store.ttl(name) <= KEPT_S, name
    store.delete(f"tk:gone:key:{made['id']}")  # as its time ends it
    assert await listed(shared) == {"items": [], "next": None}
    assert (await shared.ask("POST", f"{KEYS}/find", {"apiKey": made["apiKey"]})).status == 404


async def test_places_whose_time_is_over_leave_the_list(shared: Any, store: Any) -> None:
    """A hundred at each deletion; those that are not over stay, at the last one too."""
    now_ms = await shared.services.store.now_ms()
    over = [f"{number:013d}:{'0a1' + 'a' * 16}" for number in range(150)]
    last = f"{now_ms - KEPT_S * 1000 + 60_000:013d}:{'0a1' + 'b' * 16}"
    store.zadd("tk:gone:keys:tenant-a", dict.fromkeys([*over, last], 0))
    counts = []
    for _ in range(2):
        await end(shared, (await make(shared))["id"])
        counts.append(store.zcard("tk:gone:keys:tenant-a"))
    assert counts == [50 + 1 + 1, 1 + 2]
    assert store.zscore("tk:gone:keys:tenant-a", last) == 0


async def test_the_newest_are_first_and_pages_follow(shared: Any) -> None:
    """None twice, none left out; a cursor that no page gave is refused."""
    ids = [(await make(shared, name=f"n{number}"))["id"] for number in range(5)]
    for one in ids:
        await end(shared, one)
    told, cursor = [], ""
    while cursor is not None:
        page = await listed(shared, limit="2", cursor=cursor)
        told += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert sorted(told) == sorted(ids)
    assert told[-1] in ids[:2]
    for bad in ("x", "1:2", f"{'1' * 13}:{'x' * 20}"):
        assert (await shared.ask("GET", DELETED, params={"tenantId": "tenant-a", "cursor": bad})).faults == {
            "cursor": "format"
        }
    assert (await shared.ask("GET", DELETED)).faults == {"tenantId": "required"}
    assert (await shared.ask("GET", f"{DELETED}?tenantId=none")).code == "TENANT_NOT_FOUND"


async def test_a_publications_key_is_remembered_too(shared: Any) -> None:
    """Who unpublishes a model ends its key."""
    key_id = (await shared.show("my-model")).body["keyId"]
    assert (await shared.ask("DELETE", "/api/models/my-model/publish")).status == 204
    (one,) = (await listed(shared))["items"]
    assert (one["id"], one["name"], one["deletedBy"]) == (key_id, "my-model", "admin")


async def test_two_who_delete_at_once_leave_one_tombstone(shared: Any, store: Any) -> None:
    """The second finds nothing to delete."""
    made = await make(shared)
    answers = await asyncio.gather(*(shared.ask("DELETE", f"{KEYS}/{made['id']}") for _ in range(4)))
    assert Counter(one.status for one in answers) == {204: 1, 404: 3}
    assert store.zcard("tk:gone:keys:tenant-a") == 1


async def test_nothing_of_it_stands_in_the_way_of_a_keys_end(shared: Any, store: Any) -> None:
    """A list or a tombstone that is damaged is made again; what cannot be read is left out of lists."""
    made, other = await make(shared), await make(shared, name="other")
    store.set("tk:gone:keys:tenant-a", "no list")
    store.lpush(f"tk:gone:key:{made['id']}", "no tombstone")
    await end(shared, made["id"])
    assert [one["id"] for one in (await listed(shared))["items"]] == [made["id"]]
    await end(shared, other["id"])
    store.set(f"tk:gone:key:{made['id']}", b"{")
    assert [one["id"] for one in (await listed(shared))["items"]] == [other["id"]]


async def test_anothers_deleted_keys_are_nobodys(shared: Any) -> None:
    """Their list is answered like that of a tenant that is not there; a viewer sees those of own tenants."""
    made = await make(shared)
    await end(shared, made["id"])
    await shared.user("eve", "viewer", "tenant-b")
    await shared.user("ann", "viewer", "tenant-a")
    await shared.become("eve")
    theirs, none = [await shared.ask("GET", f"{DELETED}?tenantId={name}") for name in ("tenant-a", "none")]
    assert (theirs.status, theirs.code) == (none.status, none.code) == (404, "TENANT_NOT_FOUND")
    assert (await shared.ask("GET", DELETED)).body == {"items": [], "next": None}
    await shared.become("ann")
    assert [one["id"] for one in (await shared.ask("GET", DELETED)).body["items"]] == [made["id"]]


async def test_a_tenants_name_that_is_used_again_shows_nothing_of_before(shared: Any, store: Any) -> None:
    """No deleted key, no usage, no whose-is-it, no act: its people see what was since; admins see all."""
    made = await make(shared)
    uid, key_id = (await shared.show("my-model")).body["uid"], (await shared.show("my-model")).body["keyId"]
    for one in (made["id"], key_id):
        await used(shared, store, one)
    store.hset(f"tk:usage:{{0}}:p:{uid}", mapping={"total": 3, "last_ms": await shared.services.store.now_ms()})
    await end(shared, made["id"])
    paths = [f"{KEYS}/{made['id']}/usage", f"{KEYS}/{key_id}/usage", f"/api/published-models/{uid}/usage"]
    for path in ("/api/models/my-model/publish", "/api/models/my-model", "/api/tenants/tenant-a"):
        assert (await shared.ask("DELETE", path)).status == 204
    await asyncio.sleep(0.002)  # the store's clock goes on
    await shared.tenant("tenant-a")
    await shared.user("op", "operator", "tenant-a")
    await shared.become("op")
    assert [(await shared.ask("GET", path)).status for path in paths] == [404] * 3
    for query in ({}, {"limit": "1"}, {"limit": "2"}):  # neither what there was, nor where a page of it would end
        assert await listed(shared, **query) == {"items": [], "next": None}
    for text in (made["apiKey"], f"tk_{made['id']}"):
        assert (await shared.ask("POST", f"{KEYS}/find", {"apiKey": text})).code == "KEY_NOT_FOUND"
    acts = (await shared.ask("GET", "/api/audit")).body["items"]
    assert [one["action"] for one in acts] == ["tenant.create"]
    await shared.become("admin")
    assert [(await shared.ask("GET", path)).status for path in paths] == [200] * 3
    first = await listed(shared, limit="1")
    second = await listed(shared, limit="1", cursor=first["next"])
    assert {page["items"][0]["id"] for page in (first, second)} == {made["id"], key_id}
    (found,) = (await shared.ask("POST", f"{KEYS}/find", {"apiKey": made["apiKey"]})).body["items"]
    assert found["deleted"]["id"] == made["id"]
    assert {"key.delete", "publication.delete"} <= {
        one["action"] for one in (await shared.ask("GET", "/api/audit")).body["items"]
    }
