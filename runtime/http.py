"""A process's small HTTP face: ``/healthz``, ``/readyz``, ``/metrics``. Knows no process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from runtime.addresses import Address, TcpAddress, UnixAddress
from runtime.lifecycle import CannotStart
from runtime.process_metrics import register_process_metrics
from runtime.readiness import Readiness

_FIXED_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Server": "tollkeeper"}


def new_registry() -> CollectorRegistry:
    """Make a process's registry, the process's own numbers in it already.

    Without the ``_created`` series, which double what is scraped and tell nothing.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    register_process_metrics(registry)
    return registry


async def dressed(_request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer its fixed headers; the library's own ``Server`` would tell the software's versions."""
    response.headers.update(_FIXED_HEADERS)


async def _as_it_is() -> None:
    """Nothing has to be asked first."""


def process_face(
    readiness: Callable[[], Readiness],
    registry: CollectorRegistry,
    refresh: Callable[[], Awaitable[None]] = _as_it_is,
) -> web.Application:
    """Build the application; ``refresh`` is awaited before it tells anything."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        await refresh()
        state = readiness()
        return web.json_response(state.document(), status=200 if state.ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        await refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.on_response_prepare.append(dressed)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


@asynccontextmanager
async def listening(app: web.Application, address: Address, *, option: str) -> AsyncIterator[str]:
    """Serve ``app`` while the body runs; yields where it listens (the real port where 0 was asked).

    Raises ``CannotStart`` naming the ``option`` that gave the address where it cannot be bound.
    """
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)  # a packed body would grow unseen
    await runner.setup()
    try:
        yield await _bind_or_say(runner, address, option)
    finally:
        await runner.cleanup()


async def _bind_or_say(runner: web.AppRunner, address: Address, option: str) -> str:
    try:
        return await _bind(runner, address)
    except OSError as error:
        raise CannotStart(f"{option} {address}: cannot be bound: {error.strerror or error}") from error


async def _bind(runner: web.AppRunner, address: Address) -> str:
    match address:
        case UnixAddress(path):
            await web.UnixSite(runner, str(path)).start()
            return str(address)
        case TcpAddress(host, port):
            await web.TCPSite(runner, host, port).start()
            return str(TcpAddress(host, runner.addresses[0][1]))
