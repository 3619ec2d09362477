"""Every call of the API by every role on what is one's own, another tenant's, or not there: made of /openapi.json.

Another tenant's is compared with what is not there by asking the same in two worlds: one where the other tenant is, one
where it never was. The answers are the same byte for byte; the request's id is sent, so it is the same too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
from documented import HARMLESS, Operation, operations, with_tenant

from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.keys.keytext import mask
from catalog.records import Credential, Role, ServiceAccess, UserRecord

OWN, FOREIGN = "tenant-a", "tenant-b"
ROLES = ("admin", "operator", "viewer", "nobody")
REFUSED = 400
NOT_FOUND = 404
World = dict[bytes, bytes]


@dataclasses.dataclass
class Worlds:
    """One API, and its store as it is with the other tenant and without it."""

    api: Any
    store: Any
    document: Any
    operations: list[Operation]
    own: dict[str, str]
    foreign: dict[str, str]
    without: World
    whole: World

    async def ask(self, world: World, role: str, operation: Operation, path: str, body: Any = None) -> Any:
        """Ask in a world, and prove that what is refused changes nothing in it."""
        _set(self.store, world)
        self.api.token = ""
        if role != "nobody":
            await self.api.become(role)
        sent = operation.body if body is None else body
        answer = await self.api.ask(operation.method, path, sent, headers={"X-Request-Id": "matrix"})
        if answer.status >= REFUSED and not operation.is_open and not _is_noted(operation, answer):
            assert _lasting(_world(self.store)) == _lasting(world), (
                f"{role}: {operation.method} {path} changed something"
            )
        return answer

    async def same(self, role: str, operation: Operation, path: str, body: Any = None) -> Any:
        """Ask in both worlds; gives the one answer."""
        told = [await self.ask(world, role, operation, path, body) for world in (self.whole, self.without)]
        asked = f"{role}: {operation.method} {path} {body}"
        assert (told[0].status, told[0].text) == (told[1].status, told[1].text), asked
        assert _headers(told[0]) == _headers(told[1]), asked
        return told[0]


def _is_noted(operation: Operation, answer: Any) -> bool:
    """Whose a key is, is written down whoever asks and whatever is found."""
    return operation.path == "/api/keys/find" and answer.status == NOT_FOUND


def _headers(answer: Any) -> dict[str, str]:
    counting = {"Date", "Retry-After", "RateLimit"}  # of the time and of the caller's own calls
    return {name: value for name, value in answer.headers.items() if name not in counting}


def _world(store: Any) -> World:
    names = sorted(store.scan_iter(count=1000))
    pipe = store.pipeline(transaction=False)
    for name in names:
        pipe.dump(name)
    return dict(zip(names, pipe.execute(), strict=True))


def _lasting(world: World) -> World:
    """All but the attempts that throttles count."""
    return {name: value for name, value in world.items() if not name.startswith(b"tk:throttle:")}


def _set(store: Any, world: World) -> None:
    pipe = store.pipeline(transaction=False)
    pipe.flushdb()
    for name, value in world.items():
        pipe.restore(name, 0, value)
    pipe.execute()


async def _furnished(api: Any, tenant: str, kserve: str) -> dict[str, str]:
    """Give a tenant one of everything; returns what the variables of paths name it by."""
    host = f"{tenant}.example.com"
    await api.tenant(tenant, upstreamAllow=["127.0.0.0/8"], hosts=[host])
    await api.model(f"{tenant}-model", kserve, tenant)
    published = await api.publish(f"{tenant}-model", publicHostname=host)
    user = UserRecord(f"{tenant}-user", "", Role.VIEWER, (tenant,), 0, 0)
    credential = Credential("", (1,))
    service = UserRecord(f"{tenant}-cron", "", Role.VIEWER, (tenant,), 0, 0, service=ServiceAccess(credential))
    for one in (user, service):
        await api.services.store.commit([Put(one, 0)], audit=Audit(Recordless.START, "user.create", one.id, "", ""))
    made = published.body
    users = {"u": user.id, "s": service.id}
    return {"t": tenant, "m": f"{tenant}-model", **users, "h": host, "k": made["keyId"], "p": made["uid"]}


@pytest.fixture
async def worlds(start_api: Any, kserve: str, store: Any) -> Worlds:
    """An API with a user of each role, of a tenant that is furnished like another one."""
    api = await start_api()
    own = await _furnished(api, OWN, kserve)
    for name, role in (("operator", Role.OPERATOR), ("viewer", Role.VIEWER)):
        user = UserRecord(name, "", role, (OWN,), 0, 0)
        await api.services.store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", name, "", ""))
    without = _world(store)
    foreign = await _furnished(api, FOREIGN, kserve)
    document = (await api.ask("GET", "/openapi.json")).body
    fields = {"url": kserve, "tenantId": OWN, "publications": [own["m"]], "tenants": [OWN], "config": {}}
    fields["apiKey"] = mask(own["k"])
    return Worlds(api, store, document, operations(document, fields), own, foreign, without, _world(store))


async def test_each_role_may_what_the_document_says(worlds: Worlds) -> None:
    """On one's own tenant's things: who has the role is not refused for it; who has not, 403; nobody, 401."""
    for operation in worlds.operations:
        path = operation.filled(worlds.own)
        for role in ROLES:
            answer = await worlds.ask(worlds.whole, role, operation, path)
            asked = f"{role}: {operation.method} {path}: {answer.text}"
            if operation.is_open or role in operation.roles:
                assert answer.status < 500, asked
                assert answer.status not in {404, 415}, asked
                assert (answer.body or {}).get("code") not in {"FORBIDDEN", "UNAUTHENTICATED"}, asked
            else:
                assert answer.status == (401 if role == "nobody" else 403), asked


async def test_viewers_write_nothing_but_about_themselves(worlds: Worlds) -> None:
    """A call that changes something takes an operator at least; users and tenants are made and changed by admins."""
    written = {one for one in worlds.operations if one.method != "GET" and not one.is_open}
    assert {one.path for one in written if "viewer" in one.roles} == {"/api/admin/logout", "/api/users/me/password"}
    admins = {one.path for one in worlds.operations if one.roles == {"admin"}}
    assert admins >= {"/api/users", "/api/users/{u}", "/api/tenants", "/api/tenants/{t}"}


def _foreign_paths(worlds: Worlds, operation: Operation) -> Iterator[str]:
    """The operation's path with another tenant's thing for each of its variables, and that of everything."""
    for variable in operation.variables:
        assert variable in worlds.foreign, f"{operation.path}: say in this test what {variable} stands for"
        yield operation.filled({**worlds.own, variable: worlds.foreign[variable]})
    if len(operation.variables) > 1:
        yield operation.filled(worlds.foreign)


async def test_what_is_another_tenants_is_not_there(worlds: Worlds) -> None:
    """By every path: 404 with the answer that what never was gets, for reads and writes; and 401 before a login."""
    for operation in worlds.operations:
        for path in _foreign_paths(worlds, operation):
            for role in ("operator", "viewer"):
                answer = await worlds.same(role, operation, path)
                assert answer.status == 404, f"{role}: {operation.method} {path}: {answer.text}"
            if not operation.is_open:
                assert (await worlds.same("nobody", operation, path)).status == 401


async def test_a_query_finds_nothing_of_another_tenant(worlds: Worlds) -> None:
    """Every parameter that can name a tenant's thing names another's: the answer is the one for what never was."""
    named = {"tenantId": FOREIGN, "model": f"{FOREIGN}/{worlds.foreign['m']}", "actor": worlds.foreign["u"]}
    for operation in worlds.operations:
        for parameter in operation.query:
            if parameter in HARMLESS:
                continue
            assert parameter in named, f"{operation.path}: say in this test what ?{parameter} names"
            for values in (worlds.own, worlds.foreign):
                path = f"{operation.filled(values)}?{parameter}={named[parameter]}"
                for role in ("operator", "viewer"):
                    answer = await worlds.same(role, operation, path)
                    assert answer.status in {200, 403, 404}, f"{role}: {operation.method} {path}: {answer.text}"


async def test_a_body_finds_nothing_of_another_tenant(worlds: Worlds) -> None:
    """Every field that can name a tenant names another's: refused, with the answer for a tenant that never was."""
    seen = set()
    for operation in worlds.operations:
        for body in with_tenant(operation, worlds.document, FOREIGN):
            seen.add(operation.path)
            for role in ("operator", "viewer"):
                answer = await worlds.same(role, operation, operation.filled(worlds.own), body)
                assert 400 <= answer.status < 500, f"{role}: {operation.method} {operation.path}: {answer.text}"
    assert {"/api/models", "/api/models/{m}/publish", "/api/users", "/api/keys"} <= seen


async def test_lists_and_answers_hold_nothing_foreign(worlds: Worlds) -> None:
    """What a tenant's users read of their own is the same whether there are other tenants or not."""
    foreign = re.compile("|".join(map(re.escape, {FOREIGN, *worlds.foreign.values()})))
    for operation in worlds.operations:
        if operation.method != "GET" or operation.is_open:
            continue
        for role in ("operator", "viewer"):
            answer = await worlds.ask(worlds.whole, role, operation, operation.filled(worlds.own))
            assert not foreign.search(answer.text), f"{role}: {operation.path}: {answer.text}"
            if not operation.variables:
                await worlds.same(role, operation, operation.path)


async def test_a_call_that_no_request_can_be_made_for_is_told(worlds: Worlds) -> None:
    """A variable that nobody explained fails the test instead of being left out."""
    unknown = dataclasses.replace(worlds.operations[0], path="/api/things/{x}")
    with pytest.raises(AssertionError, match="say in this test"):
        unknown.filled(worlds.own)
