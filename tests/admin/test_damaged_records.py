"""Records that somebody damaged in the store: told as such, alone in their lists, and removable by an admin."""

from __future__ import annotations

import json
from typing import Any

import pytest

from admin.people.sessions import make_token
from admin.views import keys as key_showing
from admin.views import records as views
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Kind, Limits, Role, UserRecord

PUBLISH = "/api/models/my-model/publish"
MODEL = "/api/models/my-model?tenantId=tenant-a"


@pytest.fixture
async def published(api: Any, kserve: str) -> Any:
    """my-model of tenant-a, published, and a neighbour on the same host."""
    for name in ("my-model", "other"):
        await api.model(name, kserve)
        assert (await api.publish(name)).status == 201
    return (await api.show("my-model")).body


def _damage(store: Any, kind: str) -> str:
    """Overwrite the one record of a kind that my-model has; returns its id."""
    for name in store.keys(f"tk:rec:{kind}:*"):
        if b"my-model" in (store.get(name) or b""):
            store.set(name, b"{garbage")
            return str(name.decode().partition(f"tk:rec:{kind}:")[2])
    raise AssertionError(kind)


async def _become_operator(api: Any) -> None:
    user = UserRecord("bob", "", Role.OPERATOR, ("tenant-a",), 0, 0)
    await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "bob", "", ""))
    api.token = make_token(user, api.services.secrets.current().jwt_key, api.services.clock.wall_ms()).text


DAMAGE = {
    "no JSON": lambda _old: b"{garbage",
    "a field of no type": lambda old: json.dumps(json.loads(old) | dict.fromkeys(("updated_at_ms", "paths"), "x")),
    "another record": lambda old: json.dumps(
        {**json.loads(old), "id": "other", "tenant": "x", "name": "x", "uid": "x"}
    ),
    "no string": lambda _old: None,
}
KINDS = {
    "tenant": ("/api/tenants/{id}", "/api/tenants"),
    "user": ("/api/users/{id}", "/api/users"),
    "model": (MODEL, "/api/models"),
    "pub": (PUBLISH, "/api/published-models"),
    "key": ("/api/keys/{id}", "/api/keys"),
    "host": ("/api/hosts/{id}", "/api/hosts"),
}


@pytest.fixture
async def furnished(api: Any, published: Any) -> dict[str, str]:
    """One of each kind that is in nobody's way, by its id."""
    await api.tenant("empty")
    await api.user("ann", "operator", "tenant-b")
    host = published["publicHostname"]
    return {"tenant": "empty", "user": "ann", "host": host, "pub": published["uid"], "key": published["keyId"]} | {
        "model": "tenant-a/my-model"
    }


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_listed_as_damaged_and_removed(
    api: Any, furnished: dict[str, str], store: Any, kind: str, damage: str
) -> None:
    """The list has the others and says which one is damaged and how to remove it; that call removes it, for admins."""
    path, listed = KINDS[kind]
    record_id = furnished[kind]
    name = f"tk:rec:{kind}:{record_id}"
    stored = DAMAGE[damage](store.get(name))
    before = (await api.ask("GET", listed)).body
    store.delete(name)
    store.lpush(name, "x") if stored is None else store.set(name, stored)
    listing = await api.ask("GET", listed)
    assert (listing.status, len(listing.body["items"])) == (200, len(before["items"]) - 1), listing.text
    (told,) = listing.body["damaged"]
    assert (told["id"], told["damaged"]) == (record_id, True)
    method, _, removal = told["remove"].partition(" ")
    for call in (path.format(id=record_id), removal):
        assert (await api.ask(method, call, headers={"If-Match": '"x"'})).status == 412
    token = api.token
    await _become_operator(api)
    assert (await api.ask(method, removal)).status in {403, 404, 500}
    assert (await api.ask("GET", listed)).body.get("damaged", []) == []
    api.token = token
    removed = await api.ask(method, removal)
    assert (removed.status, (await api.ask("GET", listed)).body["damaged"]) == (204, []), removed.text
    if kind != "host":
        assert not store.exists(name)
    counted = api.services.metrics.registry.get_sample_value("tollkeeper_admin_damaged_records_total", {"kind": kind})
    assert counted == 1


@pytest.mark.parametrize(
    ("kind", "path"), [("model", MODEL), ("pub", PUBLISH), ("key", "/api/keys/{id}"), ("user", "/api/users/{id}")]
)
async def test_it_is_told_and_removed_by_its_own_path(
    api: Any, furnished: dict[str, str], store: Any, kind: str, path: str
) -> None:
    """GET says what is wrong with it, DELETE removes it; afterwards it is just not there."""
    path = path.format(id=furnished[kind])
    store.set(f"tk:rec:{kind}:{furnished[kind]}", b"{garbage")
    shown = await api.ask("GET", path)
    assert (shown.status, shown.code) == (500, "CORRUPT_RECORD")
    assert "DELETE" in shown.body["detail"]
    assert (await api.ask("DELETE", path)).status == 204
    assert (await api.ask("GET", path)).status == 404


async def test_whose_it_was_is_told_where_that_is_known(api: Any, furnished: dict[str, str], store: Any) -> None:
    """By the id, or by what is left of the record where the id proves it; a list of another tenant's is whole."""
    for kind in ("key", "pub"):
        name = f"tk:rec:{kind}:{furnished[kind]}"
        store.set(name, json.dumps({"tenant": "tenant-a"}))
        ((told,), own) = [
            (await api.ask("GET", f"{KINDS[kind][1]}?{query}")).body["damaged"] for query in ("", "tenantId=tenant-a")
        ]
        assert (told["tenantId"], own) == ("tenant-a", [told])
        assert (await api.ask("GET", f"{KINDS[kind][1]}?tenantId=tenant-b")).body["damaged"] == []
        store.set(name, json.dumps({"tenant": "tenant-b"}))  # of another shard: a lie
        (told,) = (await api.ask("GET", KINDS[kind][1])).body["damaged"]
        assert told["tenantId"] is None


async def test_a_record_that_cannot_be_shown_takes_no_list_with_it(
    api: Any, furnished: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours in showing one: the others are shown, it is told as damaged, logged, counted and removable."""
    for kind, listing in KINDS.items():
        shown = key_showing.limits if kind == "key" else views
        broken = {"key": "shown", "pub": "publication"}.get(kind, kind)
        whole = getattr(shown, broken)

        def fails(record: Any, *args: Any, _whole: Any = whole, **more: Any) -> Any:
            if getattr(record, "id", None) in furnished.values() or isinstance(record, Limits):
                raise RuntimeError("a fault")
            return _whole(record, *args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(shown, broken, fails)
            answer = await api.ask("GET", listing[1])
        assert answer.status == 200, (kind, answer.text)
        assert furnished[kind] in {one["id"] for one in answer.body["damaged"]}, kind
        assert f"{kind}:{furnished[kind]} cannot be shown" in caplog.text


async def test_a_hosts_table_is_made_again(api: Any, published: Any, kserve: str, store: Any) -> None:
    """What stands on the host keeps its place: neither taken by others nor lost; one that can be read is left alone."""
    host = published["publicHostname"]
    table = await api.services.store.get(Kind.HOST, host)
    assert (await api.ask("DELETE", f"/api/hosts/{host}")).code == "HOST_IN_USE"
    assert (await api.ask("DELETE", "/api/hosts/none.example.com")).code == "HOST_NOT_FOUND"
    store.set(f"tk:rec:host:{host}", b"{garbage")
    await api.model("third", kserve)
    assert (await api.publish("third")).code == "CORRUPT_RECORD"
    assert (await api.ask("DELETE", f"/api/hosts/{host}")).status == 204
    again = await api.services.store.get(Kind.HOST, host)
    assert (again.paths, again.models) == (table.paths, table.models)
    assert (await api.publish("third", externalPath=published["externalPath"])).code == "PATH_TAKEN"
    assert (await api.publish("third")).status == 201
    assert (await api.ask("DELETE", PUBLISH)).status == 204


async def test_a_tenant_with_something_left_stays(api: Any, published: Any, store: Any) -> None:
    """A damaged tenant goes like any other: when it has nothing left."""
    store.set("tk:rec:tenant:tenant-a", b"{garbage")
    assert (await api.ask("DELETE", "/api/tenants/tenant-a")).code == "TENANT_IN_USE"
    assert published["tenantId"] == "tenant-a"


async def test_a_publication_without_its_model_is_removed_by_uid(api: Any, published: Any, store: Any) -> None:
    """Readable or not, its model there or not: its place is free, its key is gone, and the model can be published."""
    store.delete("tk:rec:model:tenant-a/my-model")
    path = f"/api/published-models/{published['uid']}"
    assert (await api.ask("DELETE", path, headers={"If-Match": '"x"'})).status == 412
    assert (await api.ask("DELETE", path)).status == 204
    assert (await api.ask("DELETE", path)).code == "NOT_PUBLISHED"
    assert (await api.ask("GET", f"/api/keys/{published['keyId']}")).status == 404
    other = (await api.show("other")).body
    assert (await api.ask("DELETE", f"/api/published-models/{other['uid']}")).status == 204
    assert (await api.publish("other")).status == 201


async def test_a_key_that_cannot_be_read_is_not_valid(api: Any, published: Any, store: Any) -> None:
    """Validation, which needs no login, says so: damage of the key or its tenant is no fault of who asks."""
    text = (await api.ask("POST", PUBLISH + "/rotate-key")).body["apiKey"]
    for name in (f"tk:rec:key:{published['keyId']}", "tk:rec:tenant:tenant-a"):
        whole = store.getset(name, b"{garbage")
        answer = await api.ask("POST", "/api/validate-api-key", {"apiKey": text})
        assert (answer.status, answer.body["valid"]) == (200, False)
        store.set(name, whole)
    assert (await api.validate(text))["valid"]


@pytest.mark.usefixtures("published")
async def test_a_damaged_models_place_is_free_again(api: Any, kserve: str, store: Any) -> None:
    """With the model go its publication, key and path; the same name can be registered and published anew."""
    _damage(store, "model")
    await api.ask("DELETE", MODEL)
    assert [store.zcard(f"tk:index:{kind}") for kind in ("model", "pub", "key")] == [1, 1, 1]
    await api.model("my-model", kserve)
    assert (await api.publish("my-model")).status == 201


async def test_a_damaged_publications_place_is_free_again(api: Any, published: Any, store: Any) -> None:
    """Its path is free, its keys open nothing, and the model can be published again."""
    _damage(store, "pub")
    assert (await api.ask("PUT", PUBLISH, {"config": {}})).code == "CORRUPT_RECORD"
    await api.ask("DELETE", PUBLISH)
    assert (await api.publish("my-model")).status == 201
    left = await api.ask("GET", f"/api/keys/{published['keyId']}")
    assert (left.body["publications"], left.body["publicationKey"]) == ([], False)
    assert (await api.ask("DELETE", f"/api/keys/{published['keyId']}")).status == 204


async def test_a_damaged_key_is_nobodys_but_an_admins(api: Any, published: Any, store: Any) -> None:
    """Whose it was cannot be told: to others it is not there."""
    _damage(store, "key")
    await _become_operator(api)
    for method in ("GET", "DELETE"):
        assert (await api.ask(method, f"/api/keys/{published['keyId']}")).code == "KEY_NOT_FOUND"
