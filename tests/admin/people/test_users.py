"""Users: what admins make of them, what they do themselves, and that an admin who can act always stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from argon2 import PasswordHasher

from catalog.changes import Audit, Committed
from catalog.records import Kind, UserRecord
from catalog.store.store import CatalogStore

PASSWORD = "a good password"
OTHER = "another good password"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch, passwords: Any) -> None:
    """Hashes that cost little: their true cost is tested at the login."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


async def _user(api: Any, name: str) -> UserRecord:
    user = await api.services.store.get(Kind.USER, name)
    assert isinstance(user, UserRecord)
    return user


async def test_a_user_is_made_shown_changed_listed_and_deleted(api: Any) -> None:
    """What was given is shown, a change keeps what is absent, and no password ever comes out."""
    made = await api.user("ann", "operator", "tenant-b", "tenant-a")
    assert {name: made.body[name] for name in ("name", "role", "tenants", "disabled")} == {
        "name": "ann",
        "role": "operator",
        "tenants": ["tenant-a", "tenant-b"],
        "disabled": False,
    }
    changed = await api.ask("PATCH", "/api/users/ann", {"role": "viewer"})
    assert (changed.status, changed.body["role"], changed.body["tenants"]) == (200, "viewer", ["tenant-a", "tenant-b"])
    changed = await api.ask("PATCH", "/api/users/ann", {"tenants": ["*"], "password": OTHER})
    assert changed.body["tenants"] == ["*"]
    assert (await api.ask("GET", "/api/users/ann")).body == changed.body
    listed = (await api.ask("GET", "/api/users?limit=1")).body
    rest = (await api.ask("GET", f"/api/users?limit=1&cursor={listed['next']}")).body
    assert [one["name"] for one in listed["items"] + rest["items"]] == ["admin", "ann"]
    assert (await api.ask("DELETE", "/api/users/ann")).status == 204
    for method in ("GET", "DELETE", "PATCH"):
        gone = await api.ask(method, "/api/users/ann", {} if method == "PATCH" else None)
        assert (gone.status, gone.code) == (404, "USER_NOT_FOUND")
    assert not any(text in answer for answer in api.seen for text in (PASSWORD, OTHER, "argon2"))


GOOD = {"name": "ann", "password": PASSWORD, "role": "viewer", "tenants": ["tenant-a"]}


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"password": "x" * 11}, {"password": "length"}),
        ({"password": "x" * 129}, {"password": "length"}),
        ({"name": "Ann-with-a-long-name", "password": "ann-with-a-LONG-name"}, {"password": "reserved"}),
        ({"name": "me"}, {"name": "reserved"}),
        ({"name": "a b"}, {"name": "format"}),
        ({"name": ".a"}, {"name": "format"}),
        ({"role": "root"}, {"role": "choice"}),
        ({"tenants": []}, {"tenants": "required"}),
        ({"tenants": ["tenant-a", "nobody"]}, {"tenants[1]": "exists"}),
        ({"tenants": ["tenant-a", "*"]}, {"tenants": "format"}),
        ({"role": "admin"}, {"tenants": "fixed"}),
        ({"name": None, "password": "short"}, {"name": "type", "password": "length"}),
    ],
)
async def test_a_bad_user_is_refused_naming_every_fault(api: Any, change: Any, faults: dict[str, str]) -> None:
    """Each broken rule is told by its field, and nobody is made."""
    refused = await api.ask("POST", "/api/users", GOOD | change)
    assert (refused.status, refused.faults) == (400, faults)
    assert refused.code == ("INVALID_TENANT" if "exists" in faults.values() else "INVALID_REQUEST")
    assert await api.services.store.ids(Kind.USER) == ["admin"]


async def test_a_change_is_held_to_the_same_rules(api: Any) -> None:
    """Roles, tenants and passwords that could not be made cannot be changed to."""
    await api.user("ann-the-operator", "operator", "tenant-a")
    await api.user("boss", "admin")
    for name, body, faults in (
        ("ann-the-operator", {"password": "ANN-the-operator"}, {"password": "reserved"}),
        ("ann-the-operator", {"tenants": ["nobody"]}, {"tenants[0]": "exists"}),
        ("ann-the-operator", {"tenants": []}, {"tenants": "required"}),
        ("boss", {"role": "viewer"}, {"tenants": "required"}),
        ("boss", {"tenants": ["tenant-a"]}, {"tenants": "fixed"}),
    ):
        refused = await api.ask("PATCH", f"/api/users/{name}", body)
        assert (refused.status, refused.faults) == (400, faults), body
    assert (await api.ask("POST", "/api/users", GOOD | {"name": "boss"})).code == "USER_EXISTS"


async def test_what_ends_tokens_ends_them_at_once(api: Any) -> None:
    """Logout, a new password, disabling and deleting end every token; enabling or making anew revives none."""
    await api.user("ann", "viewer", "tenant-a")
    admin = api.token

    async def answered(token: str) -> int:
        api.token = token
        status = (await api.ask("GET", "/api/users/me")).status
        api.token = admin
        return int(status)

    async def of_ann() -> str:
        await api.become("ann")
        token, api.token = api.token, admin
        assert await answered(token) == 200
        return str(token)

    for change in ({"password": OTHER}, {"disabled": True}):
        token = await of_ann()
        await api.ask("PATCH", "/api/users/ann", change)
        assert await answered(token) == 401
        await api.ask("PATCH", "/api/users/ann", {"disabled": False})
        assert await answered(token) == 401
    token = await of_ann()
    await api.ask("PATCH", "/api/users/ann", {"role": "operator", "tenants": ["tenant-b"]})
    assert await answered(token) == 200
    api.token = token
    assert (await api.ask("POST", "/api/admin/logout")).status == 204
    assert await answered(token) == 401
    for _ in range(2):  # the second time nothing was counted up since she was made
        token = await of_ann()
        await api.ask("DELETE", "/api/users/ann")
        await api.user("ann", "viewer", "tenant-a")
        assert await answered(token) == 401
    token = await of_ann()
    await api.ask("DELETE", "/api/users/ann")
    assert await answered(token) == 401
    await api.user("ann", "viewer", "tenant-a")
    assert await answered(token) == 401


async def test_role_and_tenants_bind_the_next_request(api: Any) -> None:
    """A token holds neither: what was taken away is gone for the tokens that are out."""
    await api.user("ann", "operator", "tenant-a")
    admin = api.token
    await api.become("ann")
    ann = api.token
    assert (await api.ask("GET", "/api/tenants/tenant-a")).status == 200
    assert (await api.ask("DELETE", "/api/models/none")).status == 404
    api.token = admin
    await api.ask("PATCH", "/api/users/ann", {"tenants": ["tenant-b"], "role": "viewer"})
    api.token = ann
    assert (await api.ask("GET", "/api/tenants/tenant-a")).status == 404
    assert (await api.ask("POST", "/api/models", {})).status == 403


async def test_users_change_their_own_password(api: Any) -> None:
    """The right current password gives a new token and ends the old; a wrong one is 403 and counted like a login."""
    await api.user("ann", "viewer", "tenant-a")
    await api.become("ann")
    path, old = "/api/users/me/password", api.token
    for body, faults in (
        ({"currentPassword": PASSWORD, "newPassword": "short"}, {"newPassword": "length"}),
        ({"currentPassword": PASSWORD, "newPassword": PASSWORD}, {"newPassword": "reserved"}),
        ({"newPassword": OTHER}, {"currentPassword": "required"}),
    ):
        assert (await api.ask("POST", path, body)).faults == faults
    done = await api.ask("POST", path, {"currentPassword": PASSWORD, "newPassword": OTHER})
    assert (done.status, done.body["user"]["name"], done.headers["Cache-Control"]) == (200, "ann", "no-store")
    assert (await api.ask("GET", "/api/users/me")).status == 401
    api.token = done.body["token"]
    assert (await api.ask("GET", "/api/users/me")).body["name"] == "ann"
    assert api.token != old
    wrong = [await api.ask("POST", path, {"currentPassword": PASSWORD, "newPassword": "x" * 12}) for _ in range(6)]
    assert [answer.status for answer in wrong] == [403] * 5 + [429]
    assert wrong[0].code == "WRONG_PASSWORD"
    assert (await api.login("ann", OTHER)).status == 429


async def test_the_last_admin_stays(api: Any) -> None:
    """The only admin who can act cannot be demoted, disabled or deleted, not even by himself; the second last can."""
    await api.user("idle", "admin")
    await api.ask("PATCH", "/api/users/idle", {"disabled": True})
    acts: list[tuple[str, Any]] = [
        ("PATCH", {"role": "viewer", "tenants": ["tenant-a"]}),
        ("PATCH", {"disabled": True}),
        ("DELETE", None),
    ]
    for method, body in acts:
        refused = await api.ask(method, "/api/users/admin", body)
        assert (refused.status, refused.code) == (409, "LAST_ADMIN")
    assert (await api.ask("PATCH", "/api/users/admin", {"password": OTHER})).status == 200
    await api.become("admin")
    await api.ask("PATCH", "/api/users/idle", {"disabled": False})
    assert (await api.ask("DELETE", "/api/users/admin")).status == 204
    await api.become("idle")
    assert (await api.ask("DELETE", "/api/users/idle")).code == "LAST_ADMIN"


class Meeting(CatalogStore):
    """The true store, where acts on users wait for each other before their commits: all saw the same records."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.awaited = 0
        self.all_here = asyncio.Event()

    async def commit(self, changes: Any, *, audit: Audit, forget_usage: Any = ()) -> Committed:
        if self.awaited and audit.action in {"user.change", "user.delete"}:
            self.awaited -= 1
            if not self.awaited:
                self.all_here.set()
            await self.all_here.wait()
        return await super().commit(changes, audit=audit, forget_usage=forget_usage)


@pytest.fixture
async def meeting(start_api: Any, redis_client: Any) -> Any:
    """An API whose store lets acts on users meet."""
    api = await start_api(Meeting(redis_client))
    await api.tenant("tenant-a")
    return api


async def _at_once(api: Any, requests: dict[str, tuple[str, str, Any]]) -> list[Any]:
    """Send each user's request; their first commits meet."""
    api.services.store.awaited = len(requests)
    pending = []
    for name, (method, path, body) in requests.items():
        await api.become(name)
        pending.append(asyncio.ensure_future(api.ask(method, path, body)))
        await asyncio.sleep(0)  # lets the request read its token
    return await asyncio.gather(*pending)


REMOVALS: list[tuple[str, Any]] = [
    ("PATCH", {"role": "viewer", "tenants": ["*"]}),
    ("PATCH", {"disabled": True}),
    ("DELETE", None),
]


@pytest.mark.parametrize(("method", "body"), REMOVALS)
async def test_of_two_admins_who_remove_each_other_one_stays(meeting: Any, method: str, body: Any) -> None:
    """Sent at the same time, exactly one is done, though a third admin would stay anyway."""
    for name in ("one", "two"):
        await meeting.user(name, "admin")
    requests = {"one": (method, "/api/users/two", body), "two": (method, "/api/users/one", body)}
    answers = await _at_once(meeting, requests)
    done = 204 if method == "DELETE" else 200
    assert [answer.status for answer in answers if answer.status < 400] == [done]
    assert {answer.status for answer in answers} - {done} == {403 if body and "role" in body else 401}


@pytest.mark.parametrize(("method", "body"), REMOVALS)
async def test_admins_who_all_leave_at_once_leave_one(meeting: Any, method: str, body: Any) -> None:
    """Each removes himself at the same time: one is told that he is the last."""
    names = ("admin", "two", "three")
    for name in names[1:]:
        await meeting.user(name, "admin")
    answers = await _at_once(meeting, {name: (method, f"/api/users/{name}", body) for name in names})
    refused = [answer.code for answer in answers if answer.status >= 400]
    assert refused == ["LAST_ADMIN"]


async def test_a_tenant_has_fifty_users_whoever_comes_at_once(api: Any) -> None:
    """Racing requests do not pass the quota; leaving makes room, and other tenants have their own."""
    for n in range(47):
        await api.user(f"user-{n}", "viewer", "tenant-a")
    body = {"password": PASSWORD, "role": "viewer", "tenants": ["tenant-a"]}
    answers = await asyncio.gather(*(api.ask("POST", "/api/users", body | {"name": f"late-{n}"}) for n in range(8)))
    assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 5
    assert {answer.code for answer in answers if answer.status == 409} == {"QUOTA_REACHED"}
    await api.user("elsewhere", "viewer", "tenant-b")
    both = {"tenants": ["tenant-a", "tenant-b"]}
    assert (await api.ask("PATCH", "/api/users/elsewhere", both)).code == "QUOTA_REACHED"
    await api.ask("PATCH", "/api/users/user-0", {"tenants": ["tenant-b"]})
    assert (await api.ask("PATCH", "/api/users/elsewhere", both)).status == 200


async def test_acts_on_users_are_audited_without_secrets(api: Any) -> None:
    """Who made, changed or deleted whom and what changed; of a password only that it changed."""
    await api.user("ann", "viewer", "tenant-a")
    await api.ask("PATCH", "/api/users/ann", {"role": "operator", "password": OTHER})
    await api.ask("DELETE", "/api/users/ann")
    entries = (await api.services.store.audit_page(limit=3))[::-1]
    assert [(one.audit.action, one.audit.target) for one in entries] == [
        ("user.create", "ann"),
        ("user.change", "ann"),
        ("user.delete", "ann"),
    ]
    assert entries[1].audit.detail == {"role": "viewer -> operator", "password": "changed"}
    assert not any(text in str(entries) for text in (PASSWORD, OTHER, "argon2"))


async def test_users_are_admins_business(api: Any) -> None:
    """An operator hears 403, of a user who shares no tenant with him 404, as of one that is not."""
    await api.user("ann", "operator", "tenant-a")
    await api.user("mate", "viewer", "tenant-a", "tenant-b")
    await api.user("stranger", "viewer", "tenant-b")
    await api.become("ann")
    for method in ("GET", "PATCH", "DELETE"):
        body = {} if method == "PATCH" else None
        statuses = [
            (await api.ask(method, f"/api/users/{who}", body)).status
            for who in ("mate", "ann", "stranger", "admin", "nobody")
        ]
        assert statuses == [403, 403, 404, 404, 404]
    assert (await api.ask("GET", "/api/users")).status == 403
    assert (await api.ask("POST", "/api/users", GOOD)).status == 403
    assert (await api.ask("GET", "/api/users/me")).body["role"] == "operator"
