"""Records that somebody damaged in the store: told as such, left out of lists, and removable by an admin."""

from __future__ import annotations

from typing import Any

import pytest

from admin.sessions import make_token
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.records import Role, UserRecord

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


@pytest.mark.parametrize(
    ("kind", "path", "listed"),
    [
        ("model", MODEL, "/api/models"),
        ("pub", PUBLISH, "/api/published-models"),
        ("key", "/api/keys/{id}", "/api/keys"),
    ],
)
async def test_it_is_told_left_out_and_removed(
    api: Any, published: Any, store: Any, kind: str, path: str, listed: str
) -> None:
    """GET says what is wrong with it, the list has the others, DELETE removes it; afterwards it is just not there."""
    record_id = _damage(store, kind)
    path = path.format(id=record_id)
    shown = await api.ask("GET", path)
    assert (shown.status, shown.code) == (500, "CORRUPT_RECORD")
    assert "DELETE" in shown.body["detail"]
    listing = await api.ask("GET", listed)
    assert listing.status == 200
    assert "other" in listing.text
    assert "my-model" not in listing.text
    token = api.token
    await _become_operator(api)
    assert (await api.ask("DELETE", path)).status in {404, 500}
    api.token = token
    assert (await api.ask("DELETE", path, headers={"If-Match": '"x"'})).status == 412
    assert (await api.ask("DELETE", path)).status == 204
    assert (await api.ask("GET", path)).status == 404
    assert not store.exists(f"tk:rec:{kind}:{record_id}")
    assert published["modelName"] == "my-model"


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
