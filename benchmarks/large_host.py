"""What publishing holds the store for on a host that has thousands of models, all on one server.

    python -m benchmarks.large_host [--models 5000] [--rounds 20] [--json FILE]

A real admin process publishes one model more by its API, changes its path and takes it back, round by round; the
longest command of a round counts, by the store's own slow log. First the host has a table, as releases before wrote it,
then routes and places, as the admin itself closes it, which is timed as well. The row is of routes; the table, and the
host with no models, stand beside it.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio

from admin.models.tables import close
from benchmarks.ground.processes import valkey
from benchmarks.ground.rows import Row, parser_of, save, tell
from benchmarks.ground.stats import Spread
from benchmarks.ground.store import Store
from catalog.actors import Recordless
from catalog.changes import Audit, Change, Put
from catalog.ids import new_id, shard_of
from catalog.keys.secrets import create_secrets
from catalog.records import (
    HostRecord,
    Kind,
    Limits,
    ModelType,
    Protocol,
    PublicationRecord,
    ServerRecord,
    TenantRecord,
    server_of,
)
from catalog.store.store import CatalogStore
from tests.support.adminprocess import admin_process

HOST: Final = "api.router.inference-in-a-box"
MODEL: Final = "one-more"
PASSWORD: Final = "a good password"  # noqa: S105  of a store that ends with the benchmark
AT_ONCE: Final = 500
_AUDIT: Final = Audit(Recordless.START, "benchmark", "", "", "")


class Models(http.server.BaseHTTPRequestHandler):
    """A server of OpenAI's API that has the one model."""

    def do_GET(self) -> None:
        """Tell its models."""
        body = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base class names it
        """Say nothing."""


@contextmanager
def model_server() -> Iterator[str]:
    """Run it while the body runs; its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def publications(count: int, url: str) -> list[PublicationRecord]:
    """So many models of one tenant, on one server."""
    shard = shard_of("many")
    return [
        PublicationRecord(
            new_id(shard, os.urandom), "many", f"m{number}", url, ModelType.OPENAI, Protocol.OPENAI, HOST,
            f"/v1/models/many/m{number}", Limits(), True, ("many",), new_id(shard, os.urandom), 1, 1,
        )
        for number in range(count)
    ]  # fmt: skip


async def fill(store: CatalogStore, count: int, url: str) -> None:
    """Write them, with the host's table and the server's callers, as the release before had them."""
    made = publications(count, url)
    await store.commit([Put(TenantRecord("many", shard_of("many"), 1, 1), 0)], audit=_AUDIT)
    for start in range(0, count, AT_ONCE):
        await store.commit([Put(one, 0) for one in made[start : start + AT_ONCE]], audit=_AUDIT)
    table = HostRecord(HOST, {one.path: one.uid for one in made}, {f"many/{one.model}": one.uid for one in made})
    callers = ServerRecord(server_of(url), {one.uid: "many" for one in made})
    await store.commit([Put(table, 0), Put(callers, 0)], audit=_AUDIT)


async def close_table(store: CatalogStore) -> None:
    """Do what the admin does once every gate reads routes."""
    table = await store.get(Kind.HOST, HOST)

    async def commit(changes: Sequence[Change], _action: str) -> None:
        await store.commit(changes, audit=_AUDIT)

    if not isinstance(table, HostRecord) or not await close(store, table, commit):
        raise SystemExit("the table could not be closed")


class Api:
    """The admin's API, as its user."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""
        told = self.ask("POST", "/api/admin/login", {"username": "admin", "password": PASSWORD})
        self._token = str(told["token"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call; ends the benchmark where it is refused."""
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {self._token}"} if self._token else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310  our own process
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # nosec B310
            text = answer.read()
        return json.loads(text) if text else {}

    def publish_and_take_back(self) -> None:
        """One model more, moved once, and gone."""
        self.ask("POST", f"/api/models/{MODEL}/publish", {"config": {"tenantId": "one"}})
        self.ask("PUT", f"/api/models/{MODEL}/publish", {"config": {"externalPath": "/v1/models/elsewhere"}})
        self.ask("DELETE", f"/api/models/{MODEL}/publish")


def held_ms(client: redis.Redis, api: Api, rounds: int) -> list[float]:
    """The longest command of each round, in milliseconds."""
    longest: list[float] = []
    api.publish_and_take_back()  # the first one reads all publications of the server, where no record tells them
    for _ in range(rounds):
        client.slowlog_reset()
        api.publish_and_take_back()
        longest.append(max(entry["duration"] for entry in client.slowlog_get(10_000)) / 1_000)
    return longest


async def in_store(store: Store, work: Any) -> None:
    """Do something with a catalog on this store."""
    async with redis.asyncio.Redis(unix_socket_path=str(store.path)) as client:
        await work(CatalogStore(client, timeout_s=30))


def measured(count: int, rounds: int) -> Row:
    """Publish beside none, beside a table and beside routes."""
    with tempfile.TemporaryDirectory(prefix="tk-") as folder, valkey() as store, model_server() as url:
        secrets = Path(folder, "secrets.json")
        create_secrets(secrets)
        client = store.client()
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 10_000)
        options = ("--redis-url", store.url, "--secrets-file", str(secrets), "--admin-password", PASSWORD)
        with admin_process(*options, "--probe-allow", "127.0.0.0/8", "--tenant-writes-per-minute", "1000000") as admin:
            api = Api(admin.url)
            api.ask("POST", "/api/tenants", {"tenantId": "one"})
            api.ask("POST", "/api/models", {"name": MODEL, "tenantId": "one", "url": url})
            none = held_ms(client, api, rounds)
            asyncio.run(in_store(store, lambda catalog: fill(catalog, count, url)))
            table = held_ms(client, api, rounds)
            client.slowlog_reset()
            begun_s = time.monotonic()
            asyncio.run(in_store(store, close_table))
            closed_s = time.monotonic() - begun_s
            closing = max(entry["duration"] for entry in client.slowlog_get(10_000)) / 1_000
            routes = held_ms(client, api, rounds)
    return Row(
        "host_5000",
        Spread.of(routes),
        {"routes": {"held ms": routes}, "table": {"held ms": table}, "no models": {"held ms": none}},
        [f"{count} models; the table closed in {closed_s:.1f} s, its longest command {closing:.1f} ms"],
    )


def main() -> None:
    """Measure as asked."""
    parser = parser_of(__doc__, rounds=20)
    parser.add_argument("--models", type=int, default=5_000)
    options = parser.parse_args()
    save([tell(measured(options.models, options.rounds))], options.json)


if __name__ == "__main__":
    main()
