"""Logging in: what a token is good for, what failing costs, how often one may try."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import jwt
import pytest
from msgspec import structs

from admin.acts.people.users import with_password
from admin.names import throttle
from admin.people import passwords as passwords_module
from admin.people.passwords import Passwords
from admin.people.sessions import LIFETIME_S, make_token, may_finish
from admin.people.throttle import delay_ms
from admin.people.users import ensure_admin
from catalog.actors import Recordless
from catalog.changes import Audit, Delete, Put
from catalog.records import Kind, Role, TenantRecord, UserRecord
from catalog.store.store import CatalogStore
from runtime.addresses import site_of
from runtime.clock import SystemClock

PASSWORD = "a good password"


async def _change_user(api: Any, **changes: Any) -> None:
    user = await api.services.store.get(Kind.USER, "admin")
    audit = Audit(Recordless.START, "user.change", "admin", "", "")
    await api.services.store.commit([Put(structs.replace(user, **changes), user.version)], audit=audit)


async def test_a_login_opens_the_api_for_twelve_hours(start_api: Any) -> None:
    """The answer has token, end and user; the token opens what nobody may see without it."""
    api = await start_api(logged_in=False)
    closed = await api.ask("GET", "/api/tenants")
    assert (closed.status, closed.code, closed.headers["WWW-Authenticate"]) == (401, "UNAUTHENTICATED", "Bearer")
    opened = await api.login()
    assert opened.status == 200
    assert opened.body["user"] == {"name": "admin", "role": "admin", "tenants": ["*"]}
    claims = jwt.decode(opened.body["token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == LIFETIME_S == 12 * 3600
    assert opened.headers["Cache-Control"] == "no-store"
    api.token = opened.body["token"]
    assert (await api.ask("GET", "/api/tenants")).status == 200


async def test_wrong_passwords_and_unknown_users_get_one_answer(start_api: Any) -> None:
    """Nothing in the answer tells which of the two was wrong."""
    api = await start_api(logged_in=False)
    answers = [
        await api.login("admin", "wrong"),
        await api.login("nobody", "wrong"),
        await api.login("nobody\0 x", "ü"),
    ]
    for answer in answers:
        assert (answer.status, answer.code) == (401, "LOGIN_FAILED")
        assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert len({answer.text.replace(answer.body["requestId"], "") for answer in answers}) == 1


async def test_an_unknown_user_costs_a_hash_too(passwords: Passwords, password_hash: str) -> None:
    """Verifying for nobody does the same work as for somebody, and the cost is argon2id's stated one."""
    assert password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords._dummy.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    asked: list[str] = []
    true_matches = passwords._matches
    passwords._matches = lambda hashed, password: asked.append(hashed) or true_matches(hashed, password)  # type: ignore[method-assign,func-returns-value]
    try:
        assert await passwords.verify(None, "nobody's password") is False
        assert await passwords.verify(password_hash, "a good password") is True
    finally:
        del passwords._matches
    assert asked == [passwords._dummy, password_hash]


async def test_passwords_are_hashed_two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many log in, two hashes run at most, outside the event loop."""
    hashing = Passwords()
    running, most, lock = 0, 0, threading.Lock()

    def slow(_hashed: str, _password: str) -> bool:
        nonlocal running, most
        assert threading.current_thread() is not threading.main_thread()
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)  # the work itself is what is bounded
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(hashing, "_matches", slow)
    await asyncio.gather(*(hashing.verify("hash", "password") for _ in range(8)))
    assert most == passwords_module.MAX_AT_ONCE == 2


@pytest.mark.parametrize("change", [{"token_version": 2}, {"disabled": True}])
async def test_a_token_dies_with_what_it_was_given_for(start_api: Any, change: dict[str, Any]) -> None:
    """A password change or a disabled user ends every token at once."""
    api = await start_api()
    assert (await api.ask("GET", "/api/tenants")).status == 200
    await _change_user(api, **change)
    assert (await api.ask("GET", "/api/tenants")).status == 401


async def test_a_disabled_user_cannot_log_in(start_api: Any) -> None:
    """The right password of a disabled user is answered like a wrong one."""
    api = await start_api(logged_in=False)
    await _change_user(api, disabled=True)
    assert (await api.login()).code == "LOGIN_FAILED"


async def test_forged_tokens_are_refused(api: Any, secrets: Any) -> None:
    """Another key, another algorithm, none at all, an old one, one from the future, a missing claim: 401."""
    now_s = int(time.time())
    good = {"sub": "admin", "ver": 1, "iat": now_s, "exp": now_s + 60, "iss": "tollkeeper"}
    key = secrets.jwt_key
    forged = [
        jwt.encode(good, b"x" * 32, algorithm="HS256"),
        jwt.encode(good, key + key, algorithm="HS512"),
        jwt.encode(good, key + key[:16], algorithm="HS384"),
        jwt.encode(good, "", algorithm="none"),
        jwt.encode(good | {"exp": now_s - 60}, key, algorithm="HS256"),
        jwt.encode(good | {"iat": now_s + 3600}, key, algorithm="HS256"),
        jwt.encode(good | {"iss": "someone"}, key, algorithm="HS256"),
        jwt.encode(good | {"sub": "nobody"}, key, algorithm="HS256"),
        jwt.encode(good | {"ver": "1"}, key, algorithm="HS256"),
        jwt.encode(good | {"ver": 2}, key, algorithm="HS256"),
        *(jwt.encode({k: v for k, v in good.items() if k != name}, key, algorithm="HS256") for name in good),
    ]
    for token in forged:
        api.token = token
        assert (await api.ask("GET", "/api/tenants")).status == 401, jwt.get_unverified_header(token)
    api.token = jwt.encode(good, key, algorithm="HS256")
    assert (await api.ask("GET", "/api/tenants")).status == 200


async def test_an_ended_token_is_refused(api: Any, secrets: Any) -> None:
    """A token of twelve hours ago opens nothing."""
    user = await api.services.store.get(Kind.USER, "admin")
    api.token = make_token(user, secrets.jwt_key, SystemClock().wall_ms() - (LIFETIME_S + 60) * 1000).text
    assert (await api.ask("GET", "/api/tenants")).status == 401


async def test_the_sixth_failure_in_a_minute_waits(start_api: Any) -> None:
    """Five failures by user and address; then even the right password waits, and other users do not."""
    api = await start_api(logged_in=False)
    for _ in range(5):
        assert (await api.login("admin", "wrong")).status == 401
    held = await api.login()
    assert (held.status, held.code) == (429, "TOO_MANY_REQUESTS")
    assert 1 <= int(held.headers["Retry-After"]) <= 60
    assert (await api.login("someone", "else")).status == 401


async def test_guesses_sent_at_once_do_not_slip_through(start_api: Any) -> None:
    """Of twenty wrong guesses at the same time five are tried."""
    api = await start_api(logged_in=False)
    answers = await asyncio.gather(*(api.login("admin", f"wrong {n}") for n in range(20)))
    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 15


async def test_right_passwords_are_not_throttled(start_api: Any) -> None:
    """Successful logins are given back: any number of them, also at once, leaves room."""
    api = await start_api(logged_in=False)
    answers = await asyncio.gather(*(api.login() for _ in range(8)))
    assert {answer.status for answer in answers} == {200}


async def test_an_address_has_thirty_failures(start_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying many user names from one address ends at thirty."""
    api = await start_api(logged_in=False)
    monkeypatch.setattr(api.services.logins._passwords, "_matches", lambda _hashed, _password: False)
    statuses = [(await api.login(f"user-{n}", "wrong")).status for n in range(31)]
    assert statuses == [401] * 30 + [429]


def test_an_ipv6_site_counts_as_one_address() -> None:
    """Whoever has a /64 gains nothing by its many addresses."""
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:1") != site_of("2001:db8:0:1::1")
    assert site_of("::ffff:10.0.0.1") == site_of("10.0.0.1") != site_of("10.0.0.2")


async def test_throttles_leave_nothing_behind(start_api: Any, store: Any) -> None:
    """Every throttle's key has a TTL of a minute at most and names nobody."""
    api = await start_api(logged_in=False)
    await api.login("somebody", "wrong")
    names = [name for name in store.keys("*") if name.startswith(b"tk:throttle:")]
    assert len(names) == 4  # by user and address, by address, by user, and of the audit entries
    assert all(0 < store.pttl(name) <= 60_000 for name in names)
    assert not any(b"somebody" in name or b"127.0.0.1" in name for name in names)


class TestTheFirstAdmin:
    """What a start does with the first user."""

    async def test_a_password_is_made_once(self, redis_client: Any, passwords: Passwords) -> None:
        """Without a password and without users one is made and returned; the next start makes none."""
        catalog = CatalogStore(redis_client)
        made = await ensure_admin(catalog, passwords, name="admin", password=None)
        assert made is not None
        assert len(made) >= 24
        user = await catalog.get(Kind.USER, "admin")
        assert isinstance(user, UserRecord)
        assert (user.role, user.tenants) == (Role.ADMIN, ("*",))
        assert await passwords.verify(user.password_hash, made)
        assert await ensure_admin(catalog, passwords, name="admin", password=None) is None

    async def test_a_given_password_replaces_the_old_one(self, redis_client: Any, passwords: Passwords) -> None:
        """Another password ends all tokens; the same one again changes nothing."""
        catalog, versions = CatalogStore(redis_client), []
        for password in ("first", "first", "second", "second"):
            await ensure_admin(catalog, passwords, name="admin", password=password)
            user = await catalog.get(Kind.USER, "admin")
            assert isinstance(user, UserRecord)
            versions.append(user.token_version)
        assert [version - versions[0] for version in versions] == [0, 0, 1, 1]

    async def test_a_given_password_ends_what_was_begun(self, redis_client: Any, passwords: Passwords) -> None:
        """As one does that an admin gives; also where the admin had changed theirs before."""
        catalog = CatalogStore(redis_client)
        await ensure_admin(catalog, passwords, name="admin", password="first")
        before = await catalog.get(Kind.USER, "admin")
        assert isinstance(before, UserRecord)
        own = with_password(before, before.password_hash, before.updated_at_ms)
        await catalog.commit([Put(own, before.version)], audit=Audit(Recordless.START, "test", "admin", "", ""))
        assert may_finish(own, before.token_version)
        await ensure_admin(catalog, passwords, name="admin", password="second")
        after = await catalog.get(Kind.USER, "admin")
        assert isinstance(after, UserRecord)
        assert await passwords.verify(after.password_hash, "second")
        assert [may_finish(after, version) for version in (before.token_version, own.token_version)] == [False, False]

    @pytest.mark.parametrize("password", [None, "a given one"])
    async def test_a_new_installation_has_a_tenant(
        self, redis_client: Any, passwords: Passwords, password: str | None
    ) -> None:
        """``default`` comes with the first admin; what an admin deleted does not come back with the next start."""
        catalog = CatalogStore(redis_client)
        await ensure_admin(catalog, passwords, name="admin", password=password)
        tenant = await catalog.get(Kind.TENANT, "default")
        assert isinstance(tenant, TenantRecord)
        gone = Delete(Kind.TENANT, "default", tenant.version)
        await catalog.commit([gone], audit=Audit(Recordless.START, "test", "default", "", ""))
        for name in ("admin", "another"):
            await ensure_admin(catalog, passwords, name=name, password="a given one")
        assert await catalog.get(Kind.TENANT, "default") is None

    async def test_two_starts_at_once_make_one_password(self, redis_client: Any, passwords: Passwords) -> None:
        """Of two processes that start together exactly one shows a password, and it is the right one."""
        catalog = CatalogStore(redis_client)
        both = await asyncio.gather(*(ensure_admin(catalog, passwords, name="admin", password=None) for _ in range(2)))
        shown = [one for one in both if one]
        user = await catalog.get(Kind.USER, "admin")
        assert isinstance(user, UserRecord)
        assert len(shown) == 1
        assert await passwords.verify(user.password_hash, shown[0])


async def test_a_clock_a_little_ahead_is_forgiven(start_api: Any, redis_client: Any, secrets: Any) -> None:
    """A token from an admin process whose clock is three seconds ahead works; one from a minute ahead does not."""
    api = await start_api()
    user = await CatalogStore(redis_client).get(Kind.USER, "admin")
    for ahead_s, status in ((3, 200), (60, 401)):
        api.token = make_token(user, secrets.jwt_key, SystemClock().wall_ms() + ahead_s * 1000).text
        assert (await api.ask("GET", "/api/tenants")).status == status


def test_a_users_failures_delay_and_never_refuse() -> None:
    """The delay of a user grows with his failures from everywhere, from ten on, to two seconds and no further."""
    assert [delay_ms(n) for n in (0, 10, 11, 30, 50, 1_000)] == [0, 0, 50, 1_000, 2_000, 2_000]


async def test_guesses_from_everywhere_do_not_lock_a_user_out(start_api: Any, store: Any, monkeypatch: Any) -> None:
    """Guesses at one user from many addresses: what is counted stays bounded, and he logs in, a little later."""
    api = await start_api(trusted_proxies=("127.0.0.0/8",), logged_in=False)
    slept: list[float] = []
    true_sleep = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        await true_sleep(0)

    monkeypatch.setattr("admin.people.logins.asyncio.sleep", sleep)
    with monkeypatch.context() as cheap:
        cheap.setattr(api.services.logins._passwords, "_matches", lambda _hashed, _password: False)
        for n in range(60):
            body = {"username": "admin", "password": "wrong"}
            guess = await api.ask("POST", "/api/admin/login", body, headers={"X-Forwarded-For": f"192.0.2.{n}"})
            assert guess.status == 401
    assert store.zcard(throttle("failures", "admin")) == 50
    assert slept[0] == pytest.approx(0.05)
    slept.clear()
    body = {"username": "admin", "password": PASSWORD}
    answer = await api.ask("POST", "/api/admin/login", body, headers={"X-Forwarded-For": "198.51.100.1"})
    assert (answer.status, slept) == (200, [2.0])


async def test_who_is_delayed_holds_no_place(start_api: Any, monkeypatch: Any) -> None:
    """However many wait because of one user's failures, others log in; beyond a bound nobody is made to wait."""
    api = await start_api(logged_in=False)
    logins, wait = api.services.logins, asyncio.Event()
    monkeypatch.setattr("admin.people.logins.delay_ms", lambda failures: 60_000 * (failures > 0))
    monkeypatch.setattr("admin.people.logins.MAX_DELAYED", 40)
    monkeypatch.setattr("admin.people.logins.asyncio.sleep", lambda _delay_s: wait.wait())
    await api.login("victim", "wrong")
    waiting = [asyncio.ensure_future(api.login("victim", "wrong")) for _ in range(40)]
    while logins._delayed < 40:
        await api.ask("GET", "/healthz")
    assert (await api.login()).status == 200
    assert (await api.login("victim", "wrong")).status == 401
    wait.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} <= {401, 429, 503}


async def test_logins_are_audited_with_their_address(start_api: Any, store: Any) -> None:
    """Who logged in from where, and who failed to; never what was tried, nor a name that is no user's."""
    api = await start_api(logged_in=False)
    await api.login()
    await api.login("admin", "tried-this-password")
    await api.login("a-password-typed-as-name", "tried-this-password")
    entries = (await api.services.store.audit_page(limit=3))[::-1]
    told = [(one.audit.actor, one.audit.action, one.audit.target) for one in entries]
    assert told == [("admin", "login", "admin"), ("", "login.failed", "admin"), ("", "login.failed", "(unknown)")]
    assert {one.audit.detail["address"] for one in entries} == {"127.0.0.1"}
    everything = b"".join(store.dump(name) or b"" for name in store.keys("*"))
    assert b"tried-this-password" not in everything
    assert b"a-password-typed-as-name" not in everything


async def test_nobody_floods_the_audit_stream(start_api: Any, store: Any, monkeypatch: Any) -> None:
    """Of any number of failed logins in a minute so many are written; the others are counted, and epochs stay."""
    monkeypatch.setattr("admin.people.throttle.AUDITED_LOGINS", 3)
    api = await start_api(logged_in=False)
    before, epoch = store.xlen("tk:audit"), store.get("tk:epoch:{0}")
    monkeypatch.setattr(api.services.logins._passwords, "_matches", lambda _hashed, _password: False)
    answers = await asyncio.gather(*(api.login(f"user-{n}", "wrong") for n in range(8)))
    assert {answer.status for answer in answers} == {401}
    assert (store.xlen("tk:audit") - before, store.get("tk:epoch:{0}")) == (3, epoch)
    assert "tollkeeper_admin_logins_unaudited_total 5.0" in (await api.told("/metrics")).text
