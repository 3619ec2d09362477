"""Serving HTTP by aiohttp: where to listen, and within which bounds. Knows no process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from runtime.addresses import Address, TcpAddress, UnixAddress
from runtime.http.connections import API, MAX_HEADERS, MAX_LINE_BYTES, Connections, HttpBounds, MakeProtocol, uncounted
from runtime.http.face import FIXED_HEADERS
from runtime.lifecycle import CannotStart
from runtime.private_socket import PrivateSocket


async def dressed(_request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer its fixed headers; the library's own ``Server`` would tell the software's versions."""
    response.headers.update(FIXED_HEADERS)


@asynccontextmanager
async def listening(
    app: web.Application,
    address: Address,
    *,
    option: str,
    refused: Callable[[], object] = uncounted,
    bounds: HttpBounds = API,
) -> AsyncIterator[str]:
    """Serve ``app`` while the body runs; yields where it listens (the real port where 0 was asked).

    ``refused`` is called for each connection that was one too many. Raises ``CannotStart`` naming the ``option`` that
    gave the address where it cannot be bound.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # a packed body would grow unseen
        keepalive_timeout=bounds.idle_s,
        lingering_time=bounds.lingering_s,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )
    await runner.setup()
    try:
        async with _bound_or_said(Connections(made(runner), bounds, refused), address, option) as reached:
            yield reached
    finally:
        await runner.cleanup()


def made(runner: web.AppRunner) -> MakeProtocol:
    """What makes the protocol of each connection to a runner that is set up."""
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return runner.server


@asynccontextmanager
async def _bound_or_said(connections: Connections, address: Address, option: str) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(bound(connections, address))
        except OSError as error:
            raise CannotStart(f"{option} {address}: cannot be bound: {error.strerror or error}") from error
        yield _place(server, address)


def _place(server: asyncio.Server, address: Address) -> str:
    if isinstance(address, UnixAddress):
        return str(address)
    return str(TcpAddress(address.host, server.sockets[0].getsockname()[1]))


@asynccontextmanager
async def bound(connections: MakeProtocol, address: Address) -> AsyncIterator[asyncio.Server]:
    """Accept connections while the body runs; a Unix socket is its owner's alone. Raises ``OSError``."""
    loop, socket = asyncio.get_running_loop(), None
    if isinstance(address, TcpAddress):
        server = await loop.create_server(connections, address.host, address.port)
    else:
        socket = PrivateSocket(address.path)
        with socket.binding() as path:
            server = await loop.create_unix_server(connections, str(path))
    try:
        yield server
    finally:
        server.close()
        if socket is not None:
            socket.remove()
