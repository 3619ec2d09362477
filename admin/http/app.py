"""The application: every route of the table, the document that describes them, the middlewares in their order."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from admin.http.edge import BODY_S, Edge, explained, identified
from admin.http.openapi import document
from admin.http.routes import ROUTES, Route
from admin.metrics import AdminMetrics
from admin.services import Services
from runtime.http.serving import dressed

_UNKNOWN_ROUTE: Final = "none"
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_app(services: Services, *, body_s: float = BODY_S) -> web.Application:
    """Build the application from its parts; ``body_s``: how long a body may take to come."""
    app = web.Application(middlewares=[identified, _counted(services.metrics), explained])
    app.on_response_prepare.append(dressed)
    edge = Edge(services, body_s)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bound(edge, route))
    app.router.add_get("/openapi.json", _described())
    return app


def _bound(edge: Edge, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return await edge.answer(route, request)

    return handle


def _described() -> Callable[[web.Request], Awaitable[web.Response]]:
    described = document(ROUTES)

    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(described)

    return handle


def _counted(metrics: AdminMetrics) -> Any:
    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        started_s = time.perf_counter()
        response: web.StreamResponse = await handler(request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource else _UNKNOWN_ROUTE
        method = request.method if request.method in _KNOWN_METHODS else "other"
        metrics.requests.labels(route, method, response.status).inc()
        metrics.seconds.labels(route).observe(time.perf_counter() - started_s)
        return response

    return count
