"""A gate, a real Envoy and a model server that answers with any bytes: for seeing what each ending costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from gatebench import Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import create_secrets
from catalog.records import Limits, ModelType, Protocol, PublicationRecord, TokenPolicy
from extauth.records.allowances import Allowances
from extauth.records.entries import subject_of
from extauth.request.endpoints import LISTED
from gate.assembly import Gate
from publisher.envoy.bootstrap import bootstrap
from ratelimit.names import held_key
from ratelimit.tokens.reservations import is_format_2
from ratelimit.windows.budgets import MAX_UNITS
from ratelimit.windows.levels import Level
from ratelimit.windows.limiter import Limiter
from tests.e2e.proxy import HOST, PATIENCE_S, Caller, Envoy, Reply, head, options_for, short_folder
from tests.support.draws import draw

LIMIT = 100_000
CONTEXT = 1_000
MODEL = "llm"
PATH = "/v1/models/llm"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """A model server that sends what it is told, byte for byte; a call's query or last segment names its answer."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen = 0  # calls that have reached it, whole
        self.asked: deque[str] = deque(maxlen=100)  # their methods and paths: "POST /v1/chat/completions"

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="raw-server")
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(PATIENCE_S)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)  # the last when it is closed
        with contextlib.suppress(*over), contextlib.closing(writer):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await _skip_body(reader, request)
                self.seen += 1
                self.asked.append(request.partition(" HTTP/")[0])
                await self.answers[re.split("[/?]", request.split(" ")[1])[-1]](writer)
                await writer.drain()


def path_of(name: str, root: str = PATH) -> str:
    """Where the answer of this name is asked for: at the endpoint of this name, if it is one, else as a chat's."""
    return f"{root}/{name}" if name in LISTED else f"{root}/chat/completions?{name}"


async def _skip_body(reader: asyncio.StreamReader, request: str) -> None:
    lines = dict(line.lower().split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
    if "content-length" in lines:
        await reader.readexactly(int(lines["content-length"]))
    elif lines.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()


def whole(body: bytes, *headers: str, status: int = 200) -> Answer:
    """An answer of one piece; JSON unless a content-type is given."""
    given = (
        headers
        if any(one.startswith("content-type") for one in headers)
        else ("content-type: application/json", *headers)
    )

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = (f"HTTP/1.1 {status} S", f"content-length: {len(body)}", *given, "", "")
        writer.write("\r\n".join(lines).encode() + body)

    return answer


def document(fields: object, *headers: str, status: int = 200) -> Answer:
    """A JSON answer."""
    return whole(json.dumps(fields).encode(), *headers, status=status)


def events(
    text: bytes,
    *,
    piece: int = 0,
    rest_s: float = 0,
    kind: str = "text/event-stream",
    breaks: threading.Event | None = None,
) -> Answer:
    """Server-sent events, as they are or cut into pieces of so many bytes; ``breaks``, once set, ends it."""
    size = piece or len(text)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for begin in range(0, len(text), size):
            part = text[begin : begin + size]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(rest_s)
        if breaks:
            await asyncio.to_thread(breaks.wait, PATIENCE_S)
            raise ConnectionError
        writer.write(b"0\r\n\r\n")

    return answer


def sse(*documents: object, end: str = "\n\n", colon: str = "data: ", done: str = "[DONE]") -> bytes:
    """Server-sent events."""
    texts = [json.dumps(one) for one in documents] + ([done] if done else [])
    return "".join(f"{colon}{text}{end}" for text in texts).encode()


def read_until_broken(connection: socket.socket, breaks: threading.Event) -> bytes:
    """What arrives of a stream that breaks as soon as its first event was seen: how much is sent is then certain."""
    breaks.clear()
    seen = b""
    while more := connection.recv(65_536):
        seen += more
        if b"data:" in seen:
            breaks.set()
    return seen


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    """No answer, the connection ends."""
    del writer
    raise ConnectionError


async def never_answers(writer: asyncio.StreamWriter) -> None:
    """No answer, and the connection stays."""
    del writer
    await asyncio.sleep(PATIENCE_S)


def is_reserved(record: bytes) -> bool:
    """Whether a reservation, in either format, is neither settled nor presumed."""
    at = 3 if is_format_2(record) else 2 + int.from_bytes(record[:2], "little")
    return record[at] == ord("R")


@dataclass
class MeteredModel:
    """A published model behind a proxy, and what its publication has used so far."""

    envoy: Caller
    server: RawServer
    store: redis.Redis
    publication: PublicationRecord
    key: str

    def body(self, **fields: Any) -> bytes:
        """A call's body."""
        return json.dumps({"model": MODEL, "max_tokens": 100} | fields).encode()

    def call(self, name: str, body: bytes | None = None, *headers: str) -> Reply:
        """Call the model for the answer of this name."""
        return self.envoy.post(path_of(name), body or self.body(), f"x-api-key: {self.key}", *headers)

    def begin(self, name: str) -> bytes:
        """The bytes of a call, to be sent by hand."""
        body = self.body()
        fields = (f"host: {HOST}", "content-type: application/json", f"content-length: {len(body)}")
        return head("POST", path_of(name), *fields, f"x-api-key: {self.key}") + body

    def used(self) -> int:
        """Tokens of the publication that are counted now, held ones included."""
        subject = subject_of(Level.PUBLICATION, self.publication.uid, self.publication.limits)
        limiter = Limiter(cell="0", epoch_key="tk:none:{0}", feed_key="tk:nothing:{0}")
        look = limiter.take(self.store.execute_command, [draw((subject,), hits=(0,))], epoch="", look=True)
        return subject.budgets[-1].limit - look.grants[0].states[-1].remaining

    def held(self) -> int:
        """Calls whose tokens are held: neither settled nor presumed."""
        records: list[bytes] = self.store.hvals(held_key("0"))
        return sum(map(is_reserved, records))

    def settled(self) -> int:
        """What has been used once nothing is held any more."""
        wait_until(lambda: self.held() == 0, 30)
        return self.used()


@dataclass
class Metered(MeteredModel):
    """All parts, ready."""

    envoy: Envoy
    gate: Gate
    catalog: Catalog
    registry: CollectorRegistry

    def sample(self, name: str, **labels: str) -> float:
        """A counter of the gate's."""
        return self.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def metered(
    redis_url: str,
    answers: dict[str, Answer],
    *,
    tokens: TokenPolicy | None = None,
    limits: Limits | None = None,
    changed: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    **fields: Any,
) -> Iterator[Metered]:
    """Put the parts together; ``fields`` of the publication, ``changed``: the proxy's configuration from our own."""
    with short_folder() as folder, ExitStack() as stack:
        server = stack.enter_context(RawServer())
        server.answers = answers
        secrets, registry = create_secrets(folder / "secrets.json"), CollectorRegistry()
        catalog = Catalog(redis_url, secrets)
        catalog.tenant()
        publication = catalog.publication(
            model=MODEL,
            path=PATH,
            url=server.url,
            host=HOST,
            type=ModelType.OPENAI,
            protocol=Protocol.OPENAI,
            limits=limits or Limits(tokens_per_hour=LIMIT),
            tokens=tokens or TokenPolicy(context_tokens=CONTEXT),
            **fields,
        )
        _, key = catalog.key(publication)
        target = f"unix:{folder}/gate.sock"
        endings, any_faults = f"unix:{folder}/endings.sock", Allowances(errors_per_minute=MAX_UNITS)
        gate = make_gate(target, redis_url, secrets, registry, endings=endings, allowances=any_faults)
        gate.start()
        stack.callback(gate.stop)
        wait_until(lambda: gate.readiness().ready)
        options = options_for(Path(folder), target)
        envoy = Envoy(options, changed(bootstrap(options)))
        envoy.publish([publication])
        stack.enter_context(envoy)
        store = stack.enter_context(redis.Redis.from_url(redis_url))
        yield Metered(envoy, server, store, publication, key, gate, catalog, registry)
