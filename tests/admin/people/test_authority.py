"""A call changes something only while whoever sent it may still do so, however long the call took."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from msgspec import structs

from admin.acts.people import users
from admin.http.routes import ROUTES, Route
from admin.people.permissions import Access
from catalog.actors import Acting, Recordless
from catalog.changes import Audit, Committed, Delete, Put
from catalog.records import ALL_TENANTS, Kind, ModelRecord, Role, UserRecord
from catalog.store.store import ActorChanged, CatalogStore
from tests.admin.conftest import PASSWORD

OTHER = "another good password"
TESTER = Audit(Recordless.START, "test", "", "", "")


class Held(CatalogStore):
    """The true store, where a commit waits, once all was read for it, until a test lets it go."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.holds = False
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    def hold(self) -> None:
        self.holds, self.reached, self.go = True, asyncio.Event(), asyncio.Event()

    async def commit(self, changes: Any, *, audit: Audit, forget_usage: Any = ()) -> Committed:
        if self.holds:
            self.holds = False
            self.reached.set()
            await self.go.wait()
        return await super().commit(changes, audit=audit, forget_usage=forget_usage)


@dataclasses.dataclass(frozen=True)
class Example:
    """A call that would change something."""

    path: str
    body: Any = None


def _is_writing(route: Route) -> bool:
    """Whether an authenticated call of the route may commit; to look at a model keeps what its server said.

    To find whose a key is notes in the audit that it was asked, and changes nothing.
    """
    is_writing = route.method != "GET" and route.path != "/api/keys/find"
    return route.access is not Access.OPEN and (is_writing or (route.method, route.path) == ("GET", "/api/models/{m}"))


WRITING = [route for route in ROUTES if _is_writing(route)]
_USER = {"name": "backdoor", "password": PASSWORD, "role": "admin"}
EXAMPLES: dict[tuple[str, str], Example] = {
    ("POST", "/api/admin/logout"): Example("/api/admin/logout"),
    ("POST", "/api/users/me/password"): Example(
        "/api/users/me/password", {"currentPassword": PASSWORD, "newPassword": OTHER}
    ),
    ("POST", "/api/users"): Example("/api/users", _USER),
    ("PATCH", "/api/users/{u}"): Example("/api/users/bystander", {"role": "operator"}),
    ("DELETE", "/api/users/{u}"): Example("/api/users/bystander"),
    ("POST", "/api/service-accounts"): Example("/api/service-accounts", {"name": "backdoor", "role": "admin"}),
    ("PATCH", "/api/service-accounts/{s}"): Example("/api/service-accounts/cron", {"role": "operator"}),
    ("POST", "/api/service-accounts/{s}/rotate"): Example(
        "/api/service-accounts/cron/rotate", {"gracePeriodSeconds": 1}
    ),
    ("DELETE", "/api/service-accounts/{s}"): Example("/api/service-accounts/cron"),
    ("POST", "/api/tenants"): Example("/api/tenants", {"tenantId": "tenant-c"}),
    ("PATCH", "/api/tenants/{t}"): Example("/api/tenants/tenant-a", {"disabled": True}),
    ("DELETE", "/api/tenants/{t}"): Example("/api/tenants/tenant-b"),
    ("POST", "/api/models"): Example(
        "/api/models", {"name": "new", "tenantId": "tenant-a", "url": "http://127.0.0.1:1"}
    ),
    ("GET", "/api/models/{m}"): Example("/api/models/changed"),
    ("PATCH", "/api/models/{m}"): Example("/api/models/spare", {"url": "http://127.0.0.1:1"}),
    ("DELETE", "/api/models/{m}"): Example("/api/models/spare"),
    ("POST", "/api/models/{m}/publish"): Example("/api/models/spare/publish", {"config": {}}),
    ("PUT", "/api/models/{m}/publish"): Example(
        "/api/models/mine/publish", {"config": {"rateLimiting": {"burstLimit": 1}}}
    ),
    ("DELETE", "/api/models/{m}/publish"): Example("/api/models/mine/publish"),
    ("POST", "/api/models/{m}/publish/rotate-key"): Example(
        "/api/models/mine/publish/rotate-key", {"gracePeriodSeconds": 1}
    ),
    ("DELETE", "/api/published-models/{p}"): Example("/api/published-models/UID"),
    ("DELETE", "/api/hosts/{h}"): Example("/api/hosts/damaged.example"),
    ("POST", "/api/keys"): Example("/api/keys", {"tenantId": "tenant-a", "name": "backdoor", "publications": ["mine"]}),
    ("PATCH", "/api/keys/{k}"): Example("/api/keys/KEY", {"name": "other"}),
    ("DELETE", "/api/keys/{k}"): Example("/api/keys/KEY"),
    ("POST", "/api/keys/{k}/rotate"): Example("/api/keys/KEY/rotate", {"gracePeriodSeconds": 1}),
}

Loss = Callable[[UserRecord], list[Any]]


def _put(user: UserRecord, **changes: Any) -> list[Any]:
    return [Put(structs.replace(user, **changes), user.version)]


LOSSES: dict[str, tuple[Loss, frozenset[Access]]] = {
    "disabled": (lambda user: _put(user, disabled=True), frozenset()),
    "deleted": (lambda user: [Delete(Kind.USER, user.id, user.version)], frozenset()),
    "logged out": (lambda user: [Put(users.logged_out(user, 1), user.version)], frozenset()),
    "given a password": (lambda user: _put(user, token_version=user.token_version + 1), frozenset()),
    "demoted": (lambda user: _put(user, role=Role.VIEWER, tenants=("tenant-a",)), frozenset({Access.READ})),
    "moved": (lambda user: _put(user, role=Role.OPERATOR, tenants=("tenant-b",)), frozenset({Access.READ})),
}
"""What takes rights away, and the calls that it leaves."""


@dataclasses.dataclass
class Scene:
    """An API whose store holds commits, and the store that others use meanwhile."""

    api: Any
    held: Held
    others: CatalogStore
    key: str
    uid: str  # of what is published
    store: Any

    async def actor(self, route: Route) -> UserRecord:
        """A user who may do what the route does, as whom the API is called from now on."""
        admin = route.access is Access.ADMIN
        role, tenants = (Role.ADMIN, (ALL_TENANTS,)) if admin else (Role.OPERATOR, ("tenant-a",))
        known = await self.others.get(Kind.USER, "admin")
        assert isinstance(known, UserRecord)
        now_ms = await self.others.now_ms()
        user = UserRecord("leaver", known.password_hash, role, tenants, now_ms, now_ms, token_version=now_ms)
        before = await self.others.get(Kind.USER, "leaver")
        gone = [Delete(Kind.USER, "leaver", before.version)] if before else []
        for change in (*gone, Put(user, 0)):
            await self.others.commit([change], audit=TESTER)
        await self.api.become("leaver")
        return user

    async def send(self, route: Route) -> Any:
        example = EXAMPLES[route.method, route.path]
        return await self.api.ask(route.method, self.path(example), example.body)

    def path(self, example: Example) -> str:
        return example.path.replace("KEY", self.key).replace("UID", self.uid)

    def state(self) -> dict[bytes, bytes]:
        """Everything in the store but what counts attempts."""
        return {key: self.store.dump(key) for key in self.store.keys("*") if not key.startswith(b"tk:throttle:")}


@pytest.fixture
async def scene(start_api: Any, redis_client: Any, store: Any, kserve: str) -> Scene:
    """Two tenants, a model that is published, one that is not, one whose server says something else now, and a key."""
    held = Held(redis_client)
    api = await start_api(held)
    await api.tenant("tenant-a", upstreamAllow=["127.0.0.1"])
    await api.tenant("tenant-b")
    for name in ("mine", "spare", "changed"):
        await api.model(name, kserve)
    published = await api.publish("mine")
    assert published.status == 201
    await api.user("bystander", "viewer", "tenant-a")
    await api.service("cron", "viewer", "tenant-a")
    made = await api.ask("POST", "/api/keys", {"tenantId": "tenant-a", "name": "one", "publications": ["mine"]})
    changed = await held.get(Kind.MODEL, "tenant-a/changed")
    assert isinstance(changed, ModelRecord)
    await held.commit([Put(structs.replace(changed, ready=False), changed.version)], audit=TESTER)
    store.set("tk:rec:host:damaged.example", b"{")
    return Scene(api, held, CatalogStore(redis_client), made.body["id"], published.body["uid"], store)


@pytest.mark.parametrize("route", WRITING, ids=lambda route: f"{route.method} {route.path}")
async def test_no_call_writes_for_who_lost_their_rights_meanwhile(scene: Scene, route: Route) -> None:
    """Whatever took the rights away just before the commit: 401, 403 or 404, and nothing at all is written."""
    for name, (loss, leaves) in LOSSES.items():
        if route.access in leaves or (name == "moved" and route.access is Access.ADMIN and route.path.endswith("{t}")):
            continue
        user = await scene.actor(route)
        scene.held.hold()
        call = asyncio.create_task(scene.send(route))
        async with asyncio.timeout(30):
            await scene.held.reached.wait()
        await scene.others.commit(loss(user), audit=TESTER)
        before = scene.state()
        scene.held.go.set()
        answer = await call
        refused = {401} if name in {"disabled", "deleted", "logged out", "given a password"} else {400, 403, 404}
        assert answer.status in refused, (name, answer.text)
        assert answer.status != 400 or answer.code == "INVALID_TENANT"
        assert scene.state() == before, name


@pytest.mark.parametrize("route", WRITING, ids=lambda route: f"{route.method} {route.path}")
async def test_every_call_is_done_for_who_may_still(scene: Scene, route: Route) -> None:
    """A new password of one's own and a change that takes nothing away, just before the commit, fail no call."""
    user = await scene.actor(route)
    scene.held.hold()
    call = asyncio.create_task(scene.send(route))
    async with asyncio.timeout(30):
        await scene.held.reached.wait()
    own = structs.replace(users.with_password(user, user.password_hash, 1), version=2)
    await scene.others.commit([Put(own, 1)], audit=TESTER)
    await scene.others.commit(
        _put(own, tenants=(*own.tenants, "tenant-b")[: 1 if user.role is Role.ADMIN else 2]), audit=TESTER
    )
    scene.held.go.set()
    answer = await call
    assert answer.status in route.answers, answer.text
    assert answer.status < 400, answer.text


async def _slowly(go: asyncio.Event, raw: bytes) -> AsyncIterator[bytes]:
    yield raw[:1]
    await go.wait()
    yield raw[1:]


WITH_BODY = [route for route in WRITING if route.body is not None]


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: f"{route.method} {route.path}")
async def test_a_body_that_comes_late_does_nothing_for_who_was_deleted(scene: Scene, route: Route) -> None:
    """The headers came while the user might; a user of the same name who came after is somebody else."""
    for again in (False, True):
        user = await scene.actor(route)
        example, go = EXAMPLES[route.method, route.path], asyncio.Event()
        raw, headers = json.dumps(example.body).encode(), {"Content-Type": "application/json"}
        reached = _noticed(scene)
        options = {"data": _slowly(go, raw), "headers": headers}
        call = asyncio.create_task(scene.api.ask(route.method, scene.path(example), **options))
        await reached()
        await scene.others.commit([Delete(Kind.USER, "leaver", 1)], audit=TESTER)
        if again:
            stranger = structs.replace(user, created_at_ms=user.created_at_ms + 1, token_version=user.token_version + 1)
            await scene.others.commit([Put(stranger, 0)], audit=TESTER)
        before = scene.state()
        go.set()
        answer = await call
        assert answer.code in {"UNAUTHENTICATED", "WRONG_PASSWORD"}, answer.text  # nobody has that password any more
        assert scene.state() == before


def _noticed(scene: Scene) -> Callable[[], Awaitable[None]]:
    """What waits until the caller of the next request was looked up."""
    seen, get = asyncio.Event(), scene.held.get

    async def noticing(kind: Kind, record_id: str) -> Any:
        found = await get(kind, record_id)
        if kind is Kind.USER and record_id == "leaver":
            seen.set()
        return found

    scene.held.get = noticing  # type: ignore[method-assign]

    async def wait() -> None:
        async with asyncio.timeout(30):
            await seen.wait()
        scene.held.get = get  # type: ignore[method-assign]

    return wait


async def test_a_server_that_takes_its_time_gives_nobody_time(api: Any, start_server: Any) -> None:
    """A user who is disabled while a model's server is asked registers nothing."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        asked.set()
        await go.wait()
        return web.json_response({"name": "iris", "ready": True})

    url = await start_server({"/v1/models/iris": slow})
    admin = api.token
    await api.user("leaver", "admin")
    await api.become("leaver")
    body = {"name": "iris", "tenantId": "tenant-a", "url": url}
    call = asyncio.create_task(api.ask("POST", "/api/models", body))
    async with asyncio.timeout(30):
        await asked.wait()
    api.token = admin
    assert (await api.ask("PATCH", "/api/users/leaver", {"disabled": True})).status == 200
    go.set()
    assert (await call).status == 401
    assert await api.services.store.ids(Kind.MODEL) == []


DAMAGED = [
    ("key", Kind.KEY, "/api/keys/{}"),
    ("tenant", Kind.TENANT, "/api/tenants/tenant-b"),
    ("user", Kind.USER, "/api/users/bystander"),
    ("model", Kind.MODEL, "/api/models/spare?tenantId=tenant-a"),
    ("publication", Kind.PUBLICATION, "/api/models/mine/publish"),
]


@pytest.mark.parametrize(("name", "kind", "path"), DAMAGED, ids=[one[0] for one in DAMAGED])
async def test_a_damaged_record_is_removed_by_who_is_still_an_admin(
    scene: Scene, name: str, kind: Kind, path: str
) -> None:
    """Discarding goes by the same rule as every other act: an admin who was disabled meanwhile removes nothing."""
    known = {"key": scene.key, "model": "tenant-a/spare", "tenant": "tenant-b", "user": "bystander"}
    record_id = known.get(name) or (await scene.held.ids(kind))[0]
    scene.store.set(f"tk:rec:{kind.value}:{record_id}", b"{")
    user = await scene.actor(next(route for route in ROUTES if route.access is Access.ADMIN))
    scene.held.hold()
    call = asyncio.create_task(scene.api.ask("DELETE", path.format(record_id)))
    async with asyncio.timeout(30):
        await scene.held.reached.wait()
    await scene.others.commit(_put(user, disabled=True), audit=TESTER)
    before = scene.state()
    scene.held.go.set()
    assert (await call).status == 401
    assert scene.state() == before


def test_only_a_named_few_act_without_a_record() -> None:
    """The closed list: whoever is not on it is held to a user's record by each commit."""
    listed = ["start", "kubernetes", "host tables", "tollkeeper cells", "tollkeeper keys"]
    assert [actor.value for actor in Recordless] == listed
    assert all(Audit(actor, "a", "", "", "").held() is None for actor in Recordless)
    held = Audit(Acting("ann", 3, 7), "a", "", "", "").held()
    assert held is not None
    assert (held.kind, held.id, held.expected_version, held.created_at_ms) == (Kind.USER, "ann", 3, 7)


async def test_nobody_commits_by_a_name_alone(redis_client: Any, store: Any) -> None:
    """An actor that is neither a user's record nor on the list writes nothing; a call without a login neither."""
    catalog = CatalogStore(redis_client)
    user = UserRecord("ann", "", Role.VIEWER, ("tenant-a",), 0, 0)
    with pytest.raises(AssertionError):
        await catalog.commit([Put(user, 0)], audit=Audit("ann", "a", "", "", ""))  # type: ignore[arg-type]
    with pytest.raises(ActorChanged):
        await catalog.commit([Put(user, 0)], audit=Audit(Acting("bob", 1, 0), "a", "", "", ""))
    assert store.keys("*") == []
