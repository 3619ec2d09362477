"""Serving HTTP by aiohttp: where to listen, and a process's face (``runtime.face``). Knows no process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.addresses import Address, TcpAddress
from runtime.face import FIXED_HEADERS, Page, ProcessFace
from runtime.lifecycle import CannotStart
from runtime.private_socket import PrivateSocket


async def dressed(_request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer its fixed headers; the library's own ``Server`` would tell the software's versions."""
    response.headers.update(FIXED_HEADERS)


def process_face(face: ProcessFace) -> web.Application:
    """Build the application that shows a process's face."""

    def shown(page: Callable[[], Awaitable[Page]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_request: web.Request) -> web.Response:
            status, content_type, body = await page()
            return web.Response(status=status, body=body, headers={"Content-Type": content_type})

        return handler

    app = web.Application()
    app.on_response_prepare.append(dressed)
    app.add_routes([web.get(path, shown(page)) for path, page in face.pages.items()])
    return app


@asynccontextmanager
async def listening(app: web.Application, address: Address, *, option: str) -> AsyncIterator[str]:
    """Serve ``app`` while the body runs; yields where it listens (the real port where 0 was asked).

    Raises ``CannotStart`` naming the ``option`` that gave the address where it cannot be bound.
    """
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)  # a packed body would grow unseen
    await runner.setup()
    try:
        async with _bound(runner, address, option) as reached:
            yield reached
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _bound(runner: web.AppRunner, address: Address, option: str) -> AsyncIterator[str]:
    try:
        socket = await bind(runner, address)
    except OSError as error:
        raise CannotStart(f"{option} {address}: cannot be bound: {error.strerror or error}") from error
    try:
        yield str(TcpAddress(address.host, runner.addresses[0][1])) if isinstance(address, TcpAddress) else str(address)
    finally:
        if socket is not None:
            socket.remove()


async def bind(runner: web.AppRunner, address: Address) -> PrivateSocket | None:
    """Have a runner listen; returns the Unix socket, which is its owner's alone. Raises ``OSError``."""
    if isinstance(address, TcpAddress):
        await web.TCPSite(runner, address.host, address.port).start()
        return None
    socket = PrivateSocket(address.path)
    with socket.binding() as path:
        await web.UnixSite(runner, str(path)).start()
    return socket
