"""Service accounts: what a token opens and when it stops, on every path by which a person's rights would end too."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import redis
from argon2 import PasswordHasher

from admin.people.last_used import EVERY_MS, LastUsed
from catalog.keys.servicetext import TEXT_PATTERN
from catalog.records import Kind, UserRecord
from catalog.store.store import StoreUnavailable
from runtime.clock import SystemClock

URL = "/api/service-accounts"
ME = "/api/users/me"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch, passwords: Any) -> None:
    """Hashes that cost little: their true cost is tested at the login."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


async def status(api: Any, token: str, path: str = ME) -> int:
    """What a call with a token is answered."""
    return (await api.ask("GET", path, headers={"Authorization": f"Bearer {token}"})).status


async def test_an_account_is_made_shown_changed_listed_and_deleted(api: Any) -> None:
    """Its token stands in the answer that made it and in no other."""
    made = await api.service("night.cron", "operator", "tenant-b", "tenant-a", description="rotates keys")
    token = made.body["token"]
    assert re.fullmatch(TEXT_PATTERN, token)
    assert token.startswith("tka_night.cron_")
    assert made.headers["Cache-Control"] == "no-store"
    shown = await api.ask("GET", f"{URL}/night.cron")
    assert shown.body == {**made.body, "token": "tka_night.cron_…"}
    assert {name: shown.body[name] for name in ("role", "tenants", "description", "disabled", "expiresAt")} == {
        "role": "operator",
        "tenants": ["tenant-a", "tenant-b"],
        "description": "rotates keys",
        "disabled": False,
        "expiresAt": None,
    }
    changed = await api.ask("PATCH", f"{URL}/night.cron", {"role": "viewer", "expiresAt": "2999-01-01T00:00:00Z"})
    assert (changed.body["role"], changed.body["tenants"]) == ("viewer", ["tenant-a", "tenant-b"])
    assert changed.body["description"] == "rotates keys"
    assert [one["name"] for one in (await api.ask("GET", URL)).body["items"]] == ["night.cron"]
    assert [one["name"] for one in (await api.ask("GET", "/api/users")).body["items"]] == ["admin"]
    assert (await api.ask("DELETE", f"{URL}/night.cron")).status == 204
    assert await status(api, token) == 401
    gone = await api.ask("GET", f"{URL}/night.cron")
    assert (gone.status, gone.code) == (404, "SERVICE_ACCOUNT_NOT_FOUND")
    assert sum(token in answer for answer in api.seen) == 1


async def test_a_token_does_what_its_role_may_in_its_tenants(api: Any) -> None:
    """As a person's would: the audit stream has the account's name."""
    token = (await api.service("cron", "operator", "tenant-a")).body["token"]
    api.token = token
    assert (await api.ask("GET", ME)).body["service"] is True
    assert [one["tenantId"] for one in (await api.ask("GET", "/api/tenants")).body["items"]] == ["tenant-a"]
    assert (await api.ask("GET", "/api/tenants/tenant-b")).code == "TENANT_NOT_FOUND"
    assert (await api.ask("GET", URL)).code == "FORBIDDEN"
    viewer = await api.ask("POST", URL, {"name": "x", "role": "admin"})
    assert viewer.code == "FORBIDDEN"


@pytest.mark.parametrize("end", ["delete", "disable", "expire", "rotate"])
async def test_a_token_is_dead_when_its_end_is_answered(api: Any, end: str) -> None:
    """However it ends; an account that is made again under the name has another token."""
    token = (await api.service("cron", "viewer", "tenant-a")).body["token"]
    assert await status(api, token) == 200
    if end == "delete":
        await api.ask("DELETE", f"{URL}/cron")
        again = (await api.service("cron", "viewer", "tenant-a")).body["token"]
    elif end == "disable":
        await api.ask("PATCH", f"{URL}/cron", {"disabled": True})
        again = None
    elif end == "expire":
        await api.ask("PATCH", f"{URL}/cron", {"expiresAt": "2001-01-01T00:00:00Z"})
        again = None
    else:
        again = (await api.ask("POST", f"{URL}/cron/rotate")).body["token"]
    assert await status(api, token) == 401
    assert again is None or await status(api, again) == 200


async def test_a_grace_ends_by_itself(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tokens work until then, the older one not a millisecond longer; a second rotation ends the first grace."""
    first = (await api.service("cron", "viewer", "tenant-a")).body["token"]
    rotated = await api.ask("POST", f"{URL}/cron/rotate", {"gracePeriodSeconds": 60})
    second = rotated.body["token"]
    assert rotated.body["previousValidUntil"] is not None
    assert [await status(api, one) for one in (first, second)] == [200, 200]
    account = await api.services.store.get(Kind.USER, "cron")
    assert isinstance(account, UserRecord)
    assert account.service
    assert account.service.previous
    until_ms = account.service.previous.valid_until_ms
    for now_ms, expected in ((until_ms - 1, 200), (until_ms, 401)):
        monkeypatch.setattr(SystemClock, "wall_ms", lambda _self, at=now_ms: at)
        assert [await status(api, one) for one in (first, second)] == [expected, 200]
    monkeypatch.undo()
    third = (await api.ask("POST", f"{URL}/cron/rotate", {"gracePeriodSeconds": 60})).body["token"]
    assert [await status(api, one) for one in (first, second, third)] == [401, 200, 200]


async def test_of_two_rotations_at_once_one_is_refused(api: Any) -> None:
    """Nobody's new token is dead on arrival."""
    await api.service("cron", "viewer", "tenant-a")
    answers = await asyncio.gather(*(api.ask("POST", f"{URL}/cron/rotate") for _ in range(5)))
    good = [one.body["token"] for one in answers if one.status == 200]
    assert {one.code for one in answers if one.status != 200} <= {"CONFLICT"}
    assert sorted([await status(api, one) for one in good]) == [200] + [401] * (len(good) - 1)


FORGED = [
    "tka_",
    "tka_cron",
    "tka_cron_",
    "tka_cron_" + "a" * 52,
    "tka_cron_" + "a" * 51,
    "tka_" + "x" * 64 + "_" + "a" * 52,
    "tka_../etc_" + "a" * 52,
    "TKA_cron_" + "a" * 52,
    "tka_admin_" + "a" * 52,
]


@pytest.mark.parametrize("text", FORGED)
async def test_a_text_that_was_never_made_is_refused(api: Any, text: str) -> None:
    """In one answer."""
    await api.service("cron", "viewer", "tenant-a")
    answer = await api.ask("GET", ME, headers={"Authorization": f"Bearer {text}"})
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")


async def test_a_forged_token_never_reaches_the_store(api: Any, store: redis.Redis) -> None:
    """Its check is looked at first."""
    token = (await api.service("cron", "viewer", "tenant-a")).body["token"]
    changed = token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]
    before = store.info("commandstats").get("cmdstat_get", {}).get("calls", 0)
    assert await status(api, changed) == 401
    assert store.info("commandstats").get("cmdstat_get", {}).get("calls", 0) == before
    assert await status(api, token) == 200
    assert store.info("commandstats")["cmdstat_get"]["calls"] > before  # that is where it would have been looked for


async def test_a_person_and_an_account_are_not_taken_for_each_other(api: Any) -> None:
    """One name is one of them; each is found by its own paths alone, and an account has no password."""
    await api.user("ann", "viewer", "tenant-a")
    await api.service("cron", "admin")
    for path, name in ((URL, "ann"), ("/api/users", "cron")):
        for method in ("GET", "PATCH", "DELETE"):
            assert (await api.ask(method, f"{path}/{name}", {} if method == "PATCH" else None)).status == 404
    taken = await api.ask("POST", URL, {"name": "ann", "role": "admin"})
    assert taken.code == "USER_EXISTS"
    taken = await api.ask("POST", "/api/users", {"name": "cron", "role": "admin", "password": "a good password"})
    assert taken.code == "USER_EXISTS"
    assert (await api.login("cron", "a good password")).code == "LOGIN_FAILED"


async def test_an_account_has_no_session(api: Any) -> None:
    """Nor a password to change: an admin rotates its token."""
    api.token = (await api.service("cron", "admin")).body["token"]
    assert (await api.ask("POST", "/api/admin/logout")).code == "FORBIDDEN"
    body = {"currentPassword": "a good password", "newPassword": "another good password"}
    assert (await api.ask("POST", "/api/users/me/password", body)).code == "FORBIDDEN"
    assert (await api.ask("GET", ME)).status == 200


async def test_an_account_is_no_last_admin(api: Any) -> None:
    """A token may be lost: a person who can log in stays."""
    api.token = (await api.service("cron", "admin")).body["token"]
    await api.become("admin")
    refused = await api.ask("PATCH", "/api/users/admin", {"disabled": True})
    assert refused.code == "LAST_ADMIN"


GOOD = {"name": "cron", "role": "viewer", "tenants": ["tenant-a"]}


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"name": "me"}, {"name"}),
        ({"name": "a b"}, {"name"}),
        ({"name": "n" * 64}, {"name"}),
        ({"role": "root"}, {"role"}),
        ({"tenants": []}, {"tenants"}),
        ({"tenants": ["nope"]}, {"tenants[0]"}),
        ({"role": "admin"}, {"tenants"}),
        ({"expiresAt": "soon"}, {"expiresAt"}),
        ({"description": "d" * 1025}, {"description"}),
        ({"password": "a good password"}, {"password"}),
        ({"token": "tka_x"}, {"token"}),
    ],
)
async def test_bad_input_names_the_field(api: Any, change: dict[str, Any], faults: set[str]) -> None:
    """And makes nothing."""
    answer = await api.ask("POST", URL, {**GOOD, **change})
    assert (answer.status, answer.faults.keys()) == (400, faults)
    assert (await api.ask("GET", URL)).body["items"] == []


async def test_last_use_is_told_and_changes_no_version(api: Any, store: redis.Redis) -> None:
    """Written once a minute; of an account that had the name before nothing is told."""
    token = (await api.service("cron", "viewer", "tenant-a")).body["token"]
    before = await api.ask("GET", f"{URL}/cron")
    assert before.body["lastUsedAt"] is None
    assert await status(api, token) == 200
    shown = await api.ask("GET", f"{URL}/cron")
    assert shown.body["lastUsedAt"] is not None
    assert shown.headers["ETag"] == before.headers["ETag"]
    assert store.ttl("tk:used:cron") > 390 * 24 * 3600
    store.set("tk:used:cron", 1, keepttl=True)
    for _ in range(3):
        assert await status(api, token) == 200
    assert store.get("tk:used:cron") == b"1"  # not within the minute
    assert (await api.ask("GET", f"{URL}/cron")).body["lastUsedAt"] is None  # before it was made
    store.set("tk:used:cron", "damaged", keepttl=True)
    assert (await api.ask("GET", URL)).body["items"][0]["lastUsedAt"] is None


class Failing:
    """A store's client that answers when it is told to."""

    def __init__(self) -> None:
        self.fails, self.written = True, 0

    async def set(self, *_: object, **__: object) -> None:
        if self.fails:
            raise redis.TimeoutError("slow")
        self.written += 1

    async def mget(self, *_: object) -> list[bytes | None]:
        raise redis.ConnectionError("away")


async def test_a_use_that_cannot_be_noted_is_counted_and_keeps_nobody() -> None:
    """And is noted by the next call; to read it says that the store is away."""
    client, failures = Failing(), []
    used = LastUsed(client, lambda: failures.append(1))  # type: ignore[arg-type]
    await used.note("cron", 1_000_000)
    assert (client.written, len(failures)) == (0, 1)
    client.fails = False
    for now_ms in (1_000_001, 1_000_002, 1_000_001 + EVERY_MS):
        await used.note("cron", now_ms)
    assert (client.written, len(failures)) == (2, 1)
    with pytest.raises(StoreUnavailable):
        await used.read(["cron"])
    assert await used.read([]) == {}


async def test_a_damaged_account_is_removed_and_no_oracle(api: Any, store: redis.Redis) -> None:
    """An admin is told and removes it by either path; for whoever else it is not there."""
    await api.user("ann", "operator", "tenant-a")
    for path in (URL, "/api/users"):
        await api.become("admin")
        await api.service("cron", "viewer", "tenant-b")
        store.set("tk:rec:user:cron", "damaged")
        assert (await api.ask("GET", f"{path}/cron")).code == "CORRUPT_RECORD"
        await api.become("ann")
        for asked in (URL, "/api/users"):
            assert (await api.ask("GET", f"{asked}/cron")).status == 404
            assert (await api.ask("DELETE", f"{asked}/cron")).status == 404
        await api.become("admin")
        assert (await api.ask("DELETE", f"{path}/cron")).status == 204
        assert (await api.ask("GET", f"{path}/cron")).status == 404


async def test_a_conditional_change_is_held_to_its_version(api: Any) -> None:
    """As every other."""
    tag = (await api.service("cron", "viewer", "tenant-a")).headers["ETag"]
    headers = {"If-Match": tag}
    assert (await api.ask("PATCH", f"{URL}/cron", {"description": "one"}, headers=headers)).status == 200
    for method, path, body in (
        ("PATCH", f"{URL}/cron", {"description": "two"}),
        ("POST", f"{URL}/cron/rotate", None),
        ("DELETE", f"{URL}/cron", None),
    ):
        assert (await api.ask(method, path, body, headers=headers)).code == "PRECONDITION_FAILED"
