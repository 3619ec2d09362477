"""What a process says of itself: ``/healthz``, ``/readyz``, ``/metrics``; and a server of these alone.

The server speaks just enough HTTP/1.1 for them: GET and HEAD without a body, one request a connection, everything
bounded. A whole web framework would cost the gate a third of its start. Knows no process.
"""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from runtime.addresses import Address, TcpAddress, UnixAddress
from runtime.http.connections import uncounted
from runtime.lifecycle import CannotStart
from runtime.private_socket import PrivateSocket
from runtime.process_metrics import register_process_metrics
from runtime.readiness import Readiness

FIXED_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Server": "tollkeeper"}
MAX_HEAD: Final = 16 * 1024
"""Longest request line and headers together, in bytes."""
REQUEST_S: Final = 5.0
"""How long a request may take to arrive, and its answer to be taken."""
MAX_CONNECTIONS: Final = 64
"""Connections at once; more are closed unanswered."""

_JSON: Final = "application/json; charset=utf-8"


def new_registry() -> CollectorRegistry:
    """Make a process's registry, the process's own numbers in it already.

    Without the ``_created`` series, which double what is scraped and tell nothing.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    register_process_metrics(registry)
    return registry


class Page(NamedTuple):
    """One answer."""

    status: int
    content_type: str
    body: bytes


async def _as_it_is() -> None:
    """Nothing has to be asked first."""


@dataclass(frozen=True, slots=True)
class ProcessFace:
    """The three pages; ``refresh`` is awaited before readiness or metrics are told."""

    readiness: Callable[[], Readiness]
    registry: CollectorRegistry
    refresh: Callable[[], Awaitable[None]] = _as_it_is

    @property
    def pages(self) -> Mapping[str, Callable[[], Awaitable[Page]]]:
        """What is asked for, by path."""
        return {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}

    async def _healthz(self) -> Page:
        return _json(200, {"status": "alive"})

    async def _readyz(self) -> Page:
        await self.refresh()
        state = self.readiness()
        return _json(200 if state.ready else 503, state.document())

    async def _metrics(self) -> Page:
        await self.refresh()
        return Page(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))


def _json(status: int, document: object) -> Page:
    return Page(status, _JSON, json.dumps(document).encode())


def _said(status: http.HTTPStatus) -> Page:
    return Page(status.value, "text/plain; charset=utf-8", f"{status.value}: {status.phrase}\n".encode())


@asynccontextmanager
async def facing(
    face: ProcessFace, address: Address, *, option: str, refused: Callable[[], object] = uncounted
) -> AsyncIterator[str]:
    """Serve the face while the body runs; yields where it listens (the real port where 0 was asked).

    ``refused`` is called for each connection that was one too many. Raises ``CannotStart`` naming the ``option`` that
    gave the address where it cannot be bound.
    """
    connections = _Connections(face, refused)
    try:
        server, socket = await _bound(connections.serve, address)
    except OSError as error:
        raise CannotStart(f"{option} {address}: cannot be bound: {error.strerror or error}") from error
    try:
        yield _reached(server, address)
    finally:
        server.close()
        if socket is not None:
            socket.remove()
        connections.end()
        await server.wait_closed()


_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _bound(serve: _Serve, address: Address) -> tuple[asyncio.Server, PrivateSocket | None]:
    if isinstance(address, TcpAddress):
        return await asyncio.start_server(serve, address.host, address.port, limit=MAX_HEAD), None
    socket = PrivateSocket(address.path)
    with socket.binding() as path:
        return await asyncio.start_unix_server(serve, path, limit=MAX_HEAD), socket


def _reached(server: asyncio.Server, address: Address) -> str:
    if isinstance(address, UnixAddress):
        return str(address)
    return str(TcpAddress(address.host, server.sockets[0].getsockname()[1]))


class _Connections:
    """Answers one request on each connection, and ends those that are open when the face goes."""

    def __init__(self, face: ProcessFace, refused: Callable[[], object]) -> None:
        self._pages = face.pages
        self._refused = refused
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection's request and close it."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= MAX_CONNECTIONS:
            self._refused()
            writer.close()
            return
        self._tasks.add(task)
        writer.transport.set_write_buffer_limits(high=0)  # an answer is waited for until all of it was taken
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone, or takes too long: there is nobody to tell
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            method, page = "GET", _said(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            method, page = await self._page(head)
        writer.write(_written(page, with_body=method != "HEAD"))
        await writer.drain()

    async def _page(self, head: bytes) -> tuple[str, Page]:
        """What is asked, by which method."""
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004  method, target and version
            return "GET", _said(http.HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return method, _said(http.HTTPStatus.NOT_FOUND)
        return method, await page() if method in {"GET", "HEAD"} else _said(http.HTTPStatus.METHOD_NOT_ALLOWED)

    def end(self) -> None:
        """End what is still open."""
        for task in self._tasks:
            task.cancel()


def _written(page: Page, *, with_body: bool) -> bytes:
    headers = {"Content-Type": page.content_type, "Content-Length": str(len(page.body)), "Connection": "close"}
    if page.status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET,HEAD"
    lines = [f"{name}: {value}" for name, value in (headers | FIXED_HEADERS).items()]
    first = f"HTTP/1.1 {page.status} {http.HTTPStatus(page.status).phrase}"
    return "\r\n".join([first, *lines, "", ""]).encode() + (page.body if with_body else b"")
