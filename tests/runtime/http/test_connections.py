"""What anybody may take of an HTTP face by connecting to it: real sockets, small bounds."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from runtime.addresses import TcpAddress
from runtime.http.connections import FACE, MAX_HEADERS, MAX_LINE_BYTES, HttpBounds, refused_connections
from runtime.http.face import MAX_CONNECTIONS, ProcessFace, facing
from runtime.http.serving import dressed, listening
from runtime.readiness import Readiness

PATIENCE_S = 30
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 32 * 1024 * 1024  # more than two kernels hold
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Face:
    """A face that listens, and what it counted."""

    def __init__(self, address: str, registry: CollectorRegistry, option: str = "--listen") -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self._registry = registry
        self._option = option
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, **options: Any) -> Streams:
        streams = await asyncio.open_connection(self.host, self.port, **options)
        self._writers.append(streams[1])
        return streams

    @property
    def refused(self) -> float:
        labels = {"listener": self._option}
        return self._registry.get_sample_value("tollkeeper_http_connections_refused_total", labels) or 0.0

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


Start = Callable[[HttpBounds], Awaitable[Face]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """What serves ``/``, which says ok, and ``/large``, under bounds."""

    async def say(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def say_much(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async with AsyncExitStack() as stack:

        async def started(bounds: HttpBounds) -> Face:
            app, registry = web.Application(), CollectorRegistry()
            app.on_response_prepare.append(dressed)
            app.add_routes([web.get("/", say), web.post("/", say), web.get("/large", say_much)])
            refused = refused_connections(registry)
            place = TcpAddress("127.0.0.1", 0)
            at = await stack.enter_async_context(
                listening(app, place, option="--listen", refused=refused.labels("--listen").inc, bounds=bounds)
            )
            face = Face(at, registry)
            stack.callback(face.close)
            return face

        yield started


async def _status(streams: Streams, request: bytes = ASK) -> int:
    reader, writer = streams
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(length[0].partition(b":")[2]) if length else 0)
    return int(head.split()[1])


async def _ends(reader: asyncio.StreamReader) -> bytes:
    """What is still said until the connection is closed by the other side."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def _until_served(face: Face) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await _status(await face.connect()) != 200:  # noqa: ASYNC110  nobody tells when there is room
            await asyncio.sleep(0.05)


async def test_a_connection_that_says_nothing_is_closed(start: Start) -> None:
    """Neither one that never asked nor one that asked once may stay for ever."""
    face = await start(HttpBounds(idle_s=0.5))
    silent, served = await face.connect(), await face.connect()
    assert await _status(served) == 200
    assert await _ends(silent[0]) == b""
    assert await _ends(served[0]) == b""


async def test_headers_that_never_end_are_ended(start: Start) -> None:
    """A header now and then does not make the time longer."""
    face = await start(HttpBounds(idle_s=1))
    reader, writer = await face.connect()
    writer.write(b"GET / HTTP/1.1\r\n")

    async def drip() -> None:
        while True:
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert await _ends(reader) == b""
    dripping.cancel()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * MAX_LINE_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nlong: " + b"x" * (MAX_LINE_BYTES + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    ],
    ids=["line", "header", "number"],
)
async def test_large_headers_are_refused(start: Start, head: bytes) -> None:
    """By length of a line and by number."""
    face = await start(HttpBounds())
    assert await _status(await face.connect(), head) == 400


async def test_a_body_that_nobody_asked_for_is_not_awaited(start: Start) -> None:
    """It is answered at once, and the connection ends though the body never does."""
    face = await start(HttpBounds(lingering_s=0.5))
    streams = await face.connect()
    assert await _status(streams, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx") == 200
    assert await _ends(streams[0]) == b""


async def test_an_answer_that_nobody_reads_is_given_up(start: Start) -> None:
    """The connection is gone, and its place is another's."""
    face = await start(HttpBounds(connections=1, answer_s=0.5))
    reader, writer = await face.connect(limit=1024)
    writer.write(ASK.replace(b"/ ", b"/large ", 1))
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"\r\n\r\n")
    await _until_served(face)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard == resource.RLIM_INFINITY else min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_connections_are_too_many(start: Start) -> None:
    """As many as may be stay; the others get 503 and are counted; the first is served on, and room is reused."""
    most, more = 200, 800
    face = await start(HttpBounds(connections=most))
    first = await face.connect()
    assert await _status(first) == 200
    others = [await face.connect() for _ in range(most - 1)]
    beyond = [await face.connect() for _ in range(more)]
    ends = await asyncio.gather(*(_ends(reader) for reader, _ in beyond))
    assert all(end.startswith(b"HTTP/1.1 503 ") for end in ends)
    assert face.refused == more
    assert await _status(first) == 200
    for _, writer in others:
        writer.close()
    await _until_served(face)


async def test_a_face_is_bounded_too() -> None:
    """Of health and metrics: those that are one too many are closed and counted."""
    registry = CollectorRegistry()
    refused = refused_connections(registry).labels(FACE)
    shown = ProcessFace(lambda: Readiness((), (), {}), registry)
    async with facing(shown, TcpAddress("127.0.0.1", 0), option=FACE, refused=refused.inc) as at:
        there = Face(at, registry, FACE)
        held = [await there.connect() for _ in range(MAX_CONNECTIONS)]
        beyond = [await there.connect() for _ in range(5)]
        assert [await _ends(reader) for reader, _ in beyond] == [b""] * 5
        assert there.refused == 5
        assert await _status(held[0], ASK.replace(b"/ ", b"/healthz ", 1)) == 200
        there.close()
