"""The real application on a real Valkey, and small real model servers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from admin.assembly import Facts, assemble
from admin.http.app import create_app
from admin.http.edge import BODY_S
from admin.http.proxies import TrustedProxies
from admin.models.addresses import AddressRules
from admin.models.resolving import HostNames
from admin.people.pace import Paces
from admin.people.passwords import MAX_AT_ONCE, Passwords
from admin.people.sessions import make_token
from admin.quotas import Quotas
from admin.services import Gateway, Services, Stores
from catalog.actors import Recordless
from catalog.changes import Audit, Put
from catalog.keys.live_secrets import LiveSecrets
from catalog.keys.metrics import SecretsMetrics
from catalog.keys.secrets import Secrets, create_secrets, load_secrets
from catalog.records import ALL_TENANTS, HostRecord, Kind, Role, UserRecord
from catalog.status import State, Status
from catalog.store.store import CatalogStore
from runtime.addresses import TcpAddress
from runtime.clock import SystemClock
from runtime.http.face import ProcessFace, facing
from runtime.http.serving import listening
from runtime.readiness import Trouble

DEFAULT_HOST = "api.router.inference-in-a-box"
PASSWORD = "a good password"


class RecordingPublisher:
    """Counts pokes; everything it was told of is live."""

    def __init__(self) -> None:
        self.pokes = 0
        self.most: int | None = None
        self.rewrites = True
        self.speaks_grpc = True
        self.injects_values = True
        self.injects_secrets = True

    def status(self, uid: str, version: int) -> Status:
        del uid, version
        return Status(State.LIVE)

    def poke(self) -> None:
        self.pokes += 1

    def troubles(self) -> tuple[Trouble, ...]:
        return ()


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str
    body: Any = None

    @property
    def code(self) -> str:
        return str(self.body["code"])

    @property
    def faults(self) -> dict[str, str]:
        return {fault["field"]: fault["rule"] for fault in self.body.get("errors", [])}


@dataclass
class Api:
    """The application behind a real socket, with the parts a test may look at."""

    url: str
    face_url: str  # of its health and metrics
    session: aiohttp.ClientSession
    services: Services
    publisher: RecordingPublisher
    token: str = ""
    seen: list[str] = field(default_factory=list)  # every answer's text

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send a request as the admin; ``body`` is sent as JSON."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.url + path, headers=headers, **options) as response:
            text = await response.text()
            self.seen.append(text)
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(
                response.status, response.headers, text, await response.json(content_type=None) if is_json else None
            )

    async def told(self, page: str) -> Answer:
        """What a page about the process tells whoever runs it, once the store was looked at."""
        await self.services.readiness.look()
        async with self.session.get(self.face_url + page) as response:
            text = await response.text()
            self.seen.append(text)
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, response.headers, text, await response.json() if is_json else None)

    async def user(self, name: str, role: str, *tenants: str, password: str = PASSWORD) -> Answer:
        """Make a user."""
        body = {"name": name, "password": password, "role": role, **({"tenants": tenants} if tenants else {})}
        answer = await self.ask("POST", "/api/users", body)
        assert answer.status == 201, answer.text
        return answer

    def allow(self, **quotas: int) -> None:
        """Hold tenants to these quotas from now on."""
        object.__setattr__(self.services, "quotas", Quotas(**quotas))  # the application's own, which is frozen

    async def become(self, name: str) -> None:
        """Go on as this user, without the price of a login."""
        user = await self.services.store.get(Kind.USER, name)
        assert isinstance(user, UserRecord)
        self.token = make_token(user, self.services.mint.secrets.jwt_key, SystemClock().wall_ms()).text

    async def login(self, username: str = "admin", password: str = PASSWORD) -> Answer:
        return await self.ask("POST", "/api/admin/login", {"username": username, "password": password})

    async def tenant(self, name: str, **more: Any) -> None:
        answer = await self.ask("POST", "/api/tenants", {"tenantId": name, **more})
        assert answer.status == 201, answer.text

    async def service(self, name: str, role: str, *tenants: str, **more: Any) -> Answer:
        body = {"name": name, "role": role, **({"tenants": list(tenants)} if tenants else {}), **more}
        answer = await self.ask("POST", "/api/service-accounts", body)
        assert answer.status == 201, answer.text
        return answer

    async def model(self, name: str, url: str, tenant: str = "tenant-a", **more: Any) -> Answer:
        answer = await self.ask("POST", "/api/models", {"name": name, "tenantId": tenant, "url": url, **more})
        assert answer.status == 201, answer.text
        return answer

    async def publish(self, name: str, **config: Any) -> Answer:
        return await self.ask("POST", f"/api/models/{name}/publish", {"config": config})

    async def update(self, name: str, **config: Any) -> Answer:
        return await self.ask("PUT", f"/api/models/{name}/publish", {"config": config})

    async def show(self, name: str) -> Answer:
        return await self.ask("GET", f"/api/models/{name}/publish")

    async def validate(self, key: str) -> Any:
        return (await self.ask("POST", "/api/validate-api-key", {"apiKey": key})).body


StartApi = Callable[..., Awaitable[Api]]
StartServer = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def secrets_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of secrets for this run."""
    path = Path(tmp_path_factory.mktemp("secrets")) / "secrets.json"
    create_secrets(path)
    return path


@pytest.fixture(scope="session")
def secrets(secrets_file: Path) -> Secrets:
    """Secrets of this run."""
    return load_secrets(secrets_file)


@pytest.fixture(scope="session")
def passwords_once() -> Passwords:
    """The real cost of passwords, its dummy hashed once."""
    return Passwords()


@pytest.fixture
def passwords(passwords_once: Passwords) -> Passwords:
    """The same for one test: whoever waits for a turn does so in the test's own loop."""
    mine = copy.copy(passwords_once)
    mine._slots = asyncio.Semaphore(MAX_AT_ONCE)
    return mine


@pytest.fixture(scope="session")
def password_hash(passwords_once: Passwords) -> str:
    """The admin's password, hashed once: it costs what it must."""
    return asyncio.run(passwords_once.hash(PASSWORD))


async def _admin(store: CatalogStore, password_hash: str) -> UserRecord:
    """The admin, made where there is none."""
    found = await store.get(Kind.USER, "admin")
    if isinstance(found, UserRecord):
        return found
    user = UserRecord("admin", password_hash, Role.ADMIN, (ALL_TENANTS,), 0, 0)
    await store.commit([Put(user, 0)], audit=Audit(Recordless.START, "user.create", "admin", "", ""))
    return user


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's database."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Whatever a test starts ends with it."""
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
def start_api(
    stack: AsyncExitStack,
    redis_client: redis.asyncio.Redis,
    secrets: Secrets,
    secrets_file: Path,
    passwords: Passwords,
    password_hash: str,
) -> StartApi:
    """What starts an application, with whatever a test wants otherwise."""

    async def start(
        store: CatalogStore | None = None,
        *,
        key_recovery: bool = False,
        allow_anonymous: bool = False,
        trusted_proxies: tuple[str, ...] = (),
        allowed: tuple[str, ...] = ("127.0.0.0/8",),
        own_ports: tuple[int, ...] = (),
        logged_in: bool = True,
        gateway: Gateway | None = None,
        body_s: float = BODY_S,
        paces: Paces | None = None,
    ) -> Api:
        facts = Facts(
            gateway or Gateway(DEFAULT_HOST),
            AddressRules.of(allowed, own_ports),
            key_recovery=key_recovery,
            allow_anonymous=allow_anonymous,
            proxies=TrustedProxies.of(trusted_proxies),
            paces=paces or Paces(10**6, 10**6),
            host_names=HostNames(lambda _host: ()),  # every host has an address, and no name server is asked
        )
        publisher, registry = RecordingPublisher(), CollectorRegistry()
        services = assemble(
            Stores(redis_client, redis_client, store or CatalogStore(redis_client)),
            passwords,
            publisher,
            secrets=LiveSecrets(secrets_file, SecretsMetrics(registry)),
            facts=facts,
            clock=SystemClock(),
            registry=registry,
        )
        await services.readiness.look()
        user = await _admin(CatalogStore(redis_client), password_hash)
        address = await stack.enter_async_context(
            listening(create_app(services, body_s=body_s), TcpAddress("127.0.0.1", 0), option="--listen")
        )
        face = await stack.enter_async_context(
            facing(
                ProcessFace(services.readiness.readiness, registry),
                TcpAddress("127.0.0.1", 0),
                option="--http-listen",
            )
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        api = Api(f"http://{address}", f"http://{face}", session, services, publisher)
        if logged_in:
            api.token = make_token(user, secrets.jwt_key, SystemClock().wall_ms()).text
        return api

    return start


@pytest.fixture
async def api(start_api: StartApi) -> Api:
    """An application with the guide's two tenants."""
    started = await start_api()
    await started.tenant("tenant-a")
    await started.tenant("tenant-b")
    return started


HOSTS = (DEFAULT_HOST, "own.example", "other.example", "taken.example")


@pytest.fixture(params=["table", "routes"])
async def hosts(request: pytest.FixtureRequest, redis_client: redis.asyncio.Redis) -> str:
    """Hosts in both forms in turn: with a table as at first, or closed, with records of their own for what is there."""
    if request.param == "routes":
        store = CatalogStore(redis_client)
        closed: list[Put] = [Put(HostRecord(name, None, None, created_at_ms=1), 0) for name in HOSTS]
        await store.commit(closed, audit=Audit(Recordless.HOSTS, "host.close", "", "", ""))
    return str(request.param)


@pytest.fixture
def start_server(stack: AsyncExitStack) -> StartServer:
    """Start a model server that answers ``GET`` paths from a table: ``{path: (status, body)}`` or a handler."""

    async def start(routes: dict[str, Any], **options: Any) -> str:
        app = web.Application()
        for path, answer in routes.items():
            app.router.add_get(path, answer if callable(answer) else _fixed(*answer))
        server = TestServer(app, **options)
        await stack.enter_async_context(server)
        return str(server.make_url("")).rstrip("/")

    return start


def _fixed(status: int, body: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return answer


@pytest.fixture
async def kserve(start_server: StartServer) -> str:
    """A KServe v1 server that has every model, ready."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"name": request.match_info["name"], "ready": True})

    return await start_server({"/v1/models/{name}": answer})


@pytest.fixture
async def openai(start_server: StartServer) -> str:
    """A server of OpenAI's API with the model my-llm."""
    listed = {"object": "list", "data": [{"id": "my-llm", "object": "model"}]}
    return await start_server({"/v1/models": (200, listed)})
