"""The store's users of the chart, on a real Valkey: each can do its work, and the gate's can do nothing else."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from adminprocess import admin_process
from aiohttp import web
from aiohttp.test_utils import TestServer
from gatebench import Catalog, question, status, wait_until
from gateprocess import GateProcess, gate_process
from ownvalkey import own_valkey
from storeusers import USERS, rules
from tokenbench import Teller, ending, openai_publication, reservation_of, token_call
from valkeycluster import Cluster

from catalog.keys.secrets import create_secrets
from catalog.records import Limits, Reservation, TokenPolicy
from gate.links import StoreUrls
from protos.external_auth_pb2 import CheckRequest
from ratelimit.names import learned_key

ROOT = Path(__file__).parents[2]
PASSWORD = "a good password"
OF_GATE = ("gate/**/*.lua", "ratelimit/**/*.lua")
OF_ADMIN = ("ratelimit/windows/**/*.lua", "catalog/**/*.lua", "admin/**/*.lua", "publisher/turns/**/*.lua")
"""It looks with take.lua. The publisher's other Lua runs in Envoy."""
CALLED = re.compile(r"redis\.p?call\(\s*'(\w+)'(?:,\s*'(STREAM|GET|LOAD)')?")


@pytest.fixture(scope="module")
def valkey(valkey_binary: str) -> Iterator[str]:
    """A Valkey with both users beside its own; its URL, without a user."""
    with own_valkey(valkey_binary, "--appendonly", "yes", "--appendfsync", "always") as own:
        with redis.Redis.from_url(own.url) as client:
            _add_users(client)
        yield own.url


def _add_users(client: redis.Redis) -> None:
    for name in USERS:
        client.execute_command("ACL", "SETUSER", name, "reset", "on", f">{name}-password", *rules(name))


@pytest.fixture
def refused(valkey: str) -> Iterator[redis.Redis]:
    """The store's own list of what it has refused: empty when the test begins."""
    with redis.Redis.from_url(valkey, decode_responses=True) as client:
        client.execute_command("ACL", "LOG", "RESET")
        yield client
        client.flushdb()


def _as(name: str, url: str) -> str:
    return url.replace("unix://", f"unix://{name}:{name}-password@")


def _log(client: redis.Redis) -> list[Any]:
    return [(one["username"], one["reason"], one["object"]) for one in client.acl_log()]


@pytest.fixture
def catalog(valkey: str, refused: redis.Redis, tmp_path: Path) -> Catalog:
    """A catalog that the admin's user writes."""
    del refused
    return Catalog(_as("admin", valkey), create_secrets(tmp_path / "secrets.json"))


@pytest.fixture
def gate(valkey: str, catalog: Catalog, tmp_path: Path) -> Iterator[GateProcess]:
    """A gate of the gate's user that also beats."""
    del catalog
    with gate_process(_as("gate", valkey), tmp_path / "secrets.json", "--store-failure", "bounded") as running:
        yield running


def test_the_gate_serves_as_its_user(gate: GateProcess, catalog: Catalog, refused: redis.Redis) -> None:
    """Calls are admitted, limited, reserved, settled, learnt from and followed; the store refuses it nothing."""
    catalog.tenant()
    iris, llm = catalog.publication(limits=Limits(per_minute=2)), _adaptive(catalog)
    _, key = catalog.key(iris, llm)
    asked = [status(gate.asker.ask(question(key=key, publication=iris))) for _ in range(3)]
    assert asked == [200, 200, 429]
    teller = Teller(gate.target)
    reservation = reservation_of(gate.asker.ask(token_call(key, llm, max_tokens=10)))
    assert reservation
    teller.tell(ending(reservation, llm, total="20", prompt="12", completion="8"))
    wait_until(lambda: bool(refused.exists(learned_key("0", f"p:{llm.uid}"))), 60)
    teller.close()
    catalog.change(iris, limits=Limits(per_minute=9))
    assert status(gate.asker.ask(question(key=key, publication=iris))) == 200
    assert gate.warnings() == set()
    assert _log(refused) == []


def _callable(catalog: Catalog) -> CheckRequest:
    llm = catalog.publication(model="other", limits=Limits(per_minute=9))
    _, key = catalog.key(llm)
    return question(key=key, publication=llm)


def _adaptive(catalog: Catalog) -> Any:
    policy = TokenPolicy(context_tokens=1_000, reservation=Reservation.ADAPTIVE)
    return openai_publication(catalog, tokens=policy)


async def test_both_serve_with_budgets_in_a_cluster(
    valkey: str, valkey_cluster: Cluster, refused: redis.Redis, tmp_path: Path
) -> None:
    """Records in one store, budgets in a Cluster of several cells: no server of either refuses them anything."""
    secrets = create_secrets(tmp_path / "secrets.json")
    for node in valkey_cluster.nodes:
        with node.client() as client:
            _add_users(client)
            client.execute_command("ACL", "LOG", "RESET")

    def budgets(name: str) -> str:
        return valkey_cluster.url.replace("://", f"://{name}:{name}-password@")

    def stores(name: str) -> list[str]:
        return ["--records-url", _as(name, valkey), "--budgets-url", budgets(name), "--cells", "16"]

    options = [
        *stores("admin"),
        "--secrets-file",
        str(tmp_path / "secrets.json"),
        "--admin-password",
        PASSWORD,
        "--probe-allow",
        "127.0.0.0/8",
    ]
    with admin_process(*options) as admin:
        async with _model() as server, aiohttp.ClientSession(admin.url) as session:
            await _use(session, str(server.make_url("")).rstrip("/"))
    catalog = Catalog(_as("admin", valkey), secrets, StoreUrls(_as("admin", valkey), budgets("admin"), 16))
    asked = await asyncio.to_thread(_callable, catalog)
    with gate_process(_as("gate", valkey), tmp_path / "secrets.json", *stores("gate")) as gate:
        assert status(gate.asker.ask(asked)) == 200
    for node in valkey_cluster.nodes:
        with node.client() as client:
            assert _log(client) == []
    assert _log(refused) == []


FORBIDDEN: dict[str, tuple[str, ...]] = {
    "write a record": ("SET", "tk:rec:key:0a1x", "{}"),
    "delete a record": ("DEL", "tk:rec:key:0a1x"),
    "set the epoch": ("SET", "tk:epoch:{0}", "1-0000000000000000"),
    "write the feed": ("XADD", "tk:feed:{0}", "*", "epoch", "1"),
    "read users": ("ZRANGE", "tk:index:user", "0", "-1"),
    "read the audit": ("XRANGE", "tk:audit", "-", "+"),
    "write a record by a script": ("EVAL", "return redis.call('SET', KEYS[1], '{}')", "1", "tk:rec:key:0a1x"),
    "take the publisher's lease": ("SET", "tk:lease:publisher", "me"),
    "read what is not ours": ("GET", "other"),
    "list names": ("KEYS", "*"),
    "empty the store": ("FLUSHALL",),
    "configure the store": ("CONFIG", "SET", "appendonly", "no"),
    "make itself more": ("ACL", "SETUSER", "gate", "allkeys"),
    "shut the store down": ("SHUTDOWN", "NOSAVE"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_gates_user_cannot(what: str, valkey: str, refused: redis.Redis) -> None:
    """Whoever takes a gate over makes no key, lifts no limit of a record, and hides no change."""
    with redis.Redis.from_url(_as("gate", valkey)) as client, pytest.raises(redis.ResponseError) as caught:
        client.execute_command(*FORBIDDEN[what])
    assert "NOPERM" in str(caught.value) or "ACL failure" in str(caught.value) or "permission" in str(caught.value)
    assert refused.dbsize() == 0


async def test_the_admin_serves_as_its_user(valkey: str, refused: redis.Redis, tmp_path: Path) -> None:
    """Login, tenants, models, publishing, rotation, usage, audit and export: the store refuses it nothing."""
    create_secrets(tmp_path / "secrets.json")
    options = ["--redis-url", _as("admin", valkey), "--secrets-file", str(tmp_path / "secrets.json")]
    with admin_process(*options, "--admin-password", PASSWORD, "--probe-allow", "127.0.0.0/8") as admin:
        async with _model() as server, aiohttp.ClientSession(admin.url) as session:
            await _use(session, str(server.make_url("")).rstrip("/"))
    assert await asyncio.to_thread(_log, refused) == []


def _model() -> TestServer:
    async def ready(request: web.Request) -> web.Response:
        return web.json_response({"name": request.match_info["name"], "ready": True})

    app = web.Application()
    app.router.add_get("/v1/models/{name}", ready)
    return TestServer(app)


async def _use(session: aiohttp.ClientSession, server: str) -> None:
    """Ask for everything that reads or writes the store in a way of its own."""

    async def ask(method: str, path: str, body: Any = None) -> Any:
        async with session.request(method, path, json=body) as answer:
            assert answer.status < 300, (method, path, answer.status, await answer.text())
            return await answer.json(content_type=None) if answer.status != 204 else None

    login = await ask("POST", "/api/admin/login", {"username": "admin", "password": PASSWORD})
    session.headers["Authorization"] = f"Bearer {login['token']}"
    await ask("POST", "/api/tenants", {"tenantId": "tenant-a"})
    await ask("POST", "/api/models", {"name": "iris", "tenantId": "tenant-a", "url": server})
    published = await ask("POST", "/api/models/iris/publish", {"config": {"tenantId": "tenant-a"}})
    await ask("POST", "/api/validate-api-key", {"apiKey": published["apiKey"]})
    await ask("POST", "/api/models/iris/publish/rotate-key")
    for path in ("published-models", "models/iris/publish", "models/iris/usage", "keys", "audit", "users"):
        await ask("GET", f"/api/{path}")
    await ask("DELETE", "/api/models/iris/publish")
    assert (await ask("GET", "/readyz"))["ready"] is True


@pytest.mark.parametrize(("name", "scripts"), [("gate", OF_GATE), ("admin", OF_ADMIN)])
def test_a_user_may_whatever_its_scripts_do(name: str, scripts: tuple[str, ...]) -> None:
    """Branches that no test goes through included."""
    allowed, found = set(USERS[name]["commands"]), {pattern: list(ROOT.glob(pattern)) for pattern in scripts}
    assert all(found.values()), found
    for script in (file for files in found.values() for file in files):
        for command, sub in CALLED.findall(script.read_text()):
            word = f"{command}|{sub}" if sub else command
            assert word.lower() in allowed, f"{os.fspath(script)} calls {word}"


def test_the_charts_page_shows_the_tested_rules() -> None:
    """Who sets the users up by hand gives them the same rights."""
    page = (ROOT / "helm/README.md").read_text()
    shown = page.partition("<!-- users")[2].partition("<!-- /users")[0]
    lines = [line for line in shown.splitlines() if line.startswith("ACL ")]
    assert lines == [f"ACL SETUSER {name} on >PASSWORD {' '.join(rules(name))}" for name in USERS]
