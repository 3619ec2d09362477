"""A gateway's listener whose gate answers probe calls as the product's does: for tests of who asks it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from catalog.keys.probetext import is_probe
from catalog.keys.secrets import Secrets
from extauth.answers.probing import PUBLICATION, answered
from extauth.request.body import Body
from extauth.request.call import Call
from publisher.plan import Plan
from publisher.probes import bases
from runtime.clock import SystemClock

SECRETS = Secrets({1: b"p" * 32}, 1, {1: b"m" * 32}, 1, b"j" * 32, b"r" * 32)

Named = tuple[str, str]  # PUBLICATION or OPENAI_HOST, and which


@dataclass
class Listener:
    """What it serves, whom it has been asked for, and how it fails."""

    url: str = ""
    secrets: Secrets = SECRETS
    routes: dict[tuple[str, str], Named] = field(default_factory=dict)  # host and path -> what the route names
    find: Callable[[str, str], Named | None] | None = None  # who knows, instead of ``routes``
    reads_bodies: bool = True
    instead: tuple[int, str] | None = None  # answers every call so: status and body
    silent: bool = False
    slow_s: float = 0.0  # before each answer
    asked: list[str] = field(default_factory=list)  # "host/path", in order
    at_once: int = 0
    most_at_once: int = 0

    def serve(self, plan: Plan) -> None:
        """Have the routes that a plan's own questions want, and no others."""
        wanted = [question for basis in bases(plan).values() for question in basis.questions()]
        self.routes = {(one.host, one.path): (one.kind, one.name) for one in wanted}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one call."""
        self.asked.append(request.host + request.path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(3600 if self.silent else self.slow_s)
        finally:
            self.at_once -= 1
        if self.instead:
            status, body = self.instead
            return web.Response(status=status, text=body)
        return self._probed(request)

    def _find(self, host: str, path: str) -> Named | None:
        return self.routes.get((host, path))

    def _probed(self, request: web.Request) -> web.Response:
        named = (self.find or self._find)(request.host, request.path)
        if named is None:
            return web.Response(status=404)
        text = request.headers.get("x-api-key", "")
        if not is_probe(text, self.secrets, now_ms=SystemClock().wall_ms()):
            return web.Response(status=401)
        kind, name = named
        publication, host = (name, "") if kind == PUBLICATION else ("", name)
        read = self.reads_bodies and request.content_type == "application/json"
        said = answered(
            Call(text, None, publication, host, request.method, body=Body() if read else None), self.secrets
        )
        return web.Response(status=said.status, text=said.body, headers=dict(said.headers))


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    """A listener on a port of its own."""
    listener = Listener()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listener.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        listener.url = f"{'https' if tls else 'http'}://{host}:{port}"
        yield listener
    finally:
        await runner.cleanup()
