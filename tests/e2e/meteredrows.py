"""Every model of the tables of metered calls behind a real Envoy and gate, and a server that answers by script."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import redis
from gatebench import Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from catalog.records import HostRecord, Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from extauth.records.entries import subject_of
from ratelimit.names import held_key
from ratelimit.windows.budgets import Subject
from ratelimit.windows.levels import Level
from ratelimit.windows.limiter import Limiter
from tests.e2e.metered import RawServer, is_reserved
from tests.e2e.proxy import HOST, PATIENCE_S, Envoy, head, options_for, short_folder
from tests.support.draws import draw
from tests.tables.metered_words import JSON, MODELS, Answer, Model, Row, Whole

TENANT, OTHER_TENANT = "tenant-a", "tenant-b"
PLENTY = Limits(tokens_per_hour=10**9)


class ScriptedServer(RawServer):
    """Gives each call the answer at hand, once it is let go; no answer: it stays silent."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Answer | None = None
        self.bodies: list[bytes] = []
        self.arrived = threading.Event()
        self.may_answer = threading.Event()

    def expect(self, answer: Answer | None) -> None:
        """Be ready for a call."""
        self.answer = answer
        self.bodies.clear()
        self.arrived.clear()
        self.may_answer.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*over), contextlib.closing(writer):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.bodies.append(await _body(reader, request))
                self.arrived.set()
                await asyncio.to_thread(self.may_answer.wait, PATIENCE_S)
                if self.answer is None:
                    await asyncio.sleep(PATIENCE_S)
                else:
                    await _send(writer, self.answer)


async def _body(reader: asyncio.StreamReader, request: str) -> bytes:
    lines = dict(line.lower().split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
    if "content-length" in lines:
        return await reader.readexactly(int(lines["content-length"]))
    body = b""
    while lines.get("transfer-encoding") == "chunked" and (size := int(await reader.readline(), 16)):
        body += (await reader.readexactly(size + 2))[:-2]
    return body


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    if isinstance(answer, Whole):
        said = (f"HTTP/1.1 {answer.status} S", f"content-length: {len(answer.body)}", f"content-type: {answer.kind}")
        writer.write("\r\n".join((*said, "", "")).encode() + answer.body)
    else:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in _pieces(answer.events, answer.piece):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def _pieces(events: tuple[bytes, ...], size: int) -> Iterator[bytes]:
    """The events as they are, or their text cut into pieces of so many bytes."""
    text = b"".join(events)
    yield from (text[begin : begin + size] for begin in range(0, len(text), size)) if size else events


@dataclass(frozen=True)
class Outcome:
    """What became of a call."""

    status: int
    body: bytes
    seen: tuple[bytes, ...]  # bodies that reached the server
    held: int  # tokens, while the server had the call
    charged: int


@dataclass
class Rows:
    """All parts, ready."""

    envoy: Envoy
    server: ScriptedServer
    store: redis.Redis
    catalog: Catalog
    publications: dict[str, PublicationRecord]
    keys: dict[str, str]  # by tenant
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def run(self, row: Row, *, by_host: bool = False) -> Outcome:
        """Make a row's call by its model's own URL, or by the host's."""
        self.forget()
        self.server.expect(row.answer)
        path = f"/v1/{row.path}" if by_host else f"/v1/models/{row.model.name}/{row.path}"
        asked = self.pool.submit(self.ask, path, row.body)
        wait_until(lambda: self.server.arrived.is_set() or asked.done(), PATIENCE_S)
        held = self.used(row.model)
        self.server.may_answer.set()
        status, body = asked.result(PATIENCE_S)
        return Outcome(status, body, tuple(self.server.bodies), held, self.settled(row.model))

    def begin(self, path: str, body: bytes, *, tenant: str = TENANT) -> bytes:
        """The bytes of a call."""
        said = (f"host: {HOST}", f"x-api-key: {self.keys[tenant]}", f"content-type: {JSON}")
        return head("POST", path, *said, f"content-length: {len(body)}") + body

    def ask(self, path: str, body: bytes, *, tenant: str = TENANT) -> tuple[int, bytes]:
        """Call and read the answer: its status and its body."""
        with self.envoy.connect() as connection:
            connection.sendall(self.begin(path, body, tenant=tenant))
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            return response.status, response.read()

    def used(self, model: Model) -> int:
        """Tokens of its publication that are counted now, held ones included."""
        publication = self.publications[model.name]
        return self._used(subject_of(Level.PUBLICATION, publication.uid, publication.limits))

    def used_by(self, tenant: str) -> int:
        """The same of a tenant's budget."""
        return self._used(subject_of(Level.TENANT, tenant, PLENTY))

    def _used(self, subject: Subject) -> int:
        limiter = Limiter(cell="0", epoch_key="tk:none:{0}", feed_key="tk:nothing:{0}")
        look = limiter.take(self.store.execute_command, [draw((subject,), hits=(0,))], epoch="", look=True)
        return subject.budgets[-1].limit - look.grants[0].states[-1].remaining

    def settled(self, model: Model) -> int:
        """What has been used once nothing is held any more."""
        wait_until(lambda: not any(map(is_reserved, self.store.hvals(held_key("0")))), 30)
        return self.used(model)

    def forget(self, *names: str) -> None:
        """Begin with empty budgets, and, unless said otherwise, as if nothing had been learnt."""
        for pattern in names or ("tk:budget:*", "tk:learned:*"):
            for name in self.store.scan_iter(pattern, 1_000):
                self.store.delete(name)


@contextmanager
def metered_rows(redis_url: str) -> Iterator[Rows]:
    """Put the parts together."""
    with short_folder() as folder, ExitStack() as stack:
        server = stack.enter_context(ScriptedServer())
        catalog = Catalog(redis_url, create_secrets(folder / "secrets.json"))
        for tenant in (TENANT, OTHER_TENANT):
            catalog.tenant(tenant, limits=PLENTY)
        published = {model.name: _published(catalog, model, server.url) for model in MODELS}
        paths = {one.path: one.uid for one in published.values()}
        catalog.add(HostRecord(HOST, paths, {f"{TENANT}/{name}": one.uid for name, one in published.items()}))
        keys = {tenant: catalog.key(*published.values(), tenant=tenant)[1] for tenant in (TENANT, OTHER_TENANT)}
        target = f"unix:{folder}/gate.sock"
        gate = make_gate(target, redis_url, catalog.secrets, CollectorRegistry(), endings=f"unix:{folder}/endings.sock")
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        envoy = Envoy(options_for(folder, target))
        envoy.publish(list(published.values()))
        stack.enter_context(envoy)
        store = stack.enter_context(redis.Redis.from_url(redis_url))
        rows = Rows(envoy, server, store, catalog, published, keys)
        stack.enter_context(rows.pool)
        yield rows


def _published(catalog: Catalog, model: Model, url: str) -> PublicationRecord:
    return catalog.publication(
        TENANT,
        model.name,
        path=f"/v1/models/{model.name}",
        url=url,
        host=HOST,
        allowed_tenants=(TENANT, OTHER_TENANT),
        type=ModelType.OPENAI,
        protocol=Protocol.OPENAI,
        limits=Limits(tokens_per_hour=model.tokens_per_hour),
        tokens=TokenPolicy(context_tokens=model.context_tokens),
    )
