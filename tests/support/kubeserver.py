"""A Kubernetes API in memory: any kind listed, watched, applied and removed, and failures that a real one has not.

It stands beside the tests on the real API server, which are in tests/kube: what it answers was seen there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from aiohttp import web
from aiohttp.test_utils import TestServer

from runtime.kube.api import Json, Kind, KubeApi


@dataclass
class KubeServer:
    """What is stored, and what goes wrong. Paths are ``Kind.path`` of one object, of a namespace or of all."""

    objects: dict[str, Json] = field(default_factory=dict)  # by path
    version: int = 100
    refuse: int = 0  # a status that every request gets
    expire_watches: bool = False  # every watch is told at once that its version is gone
    unreadable: bool = False
    hang: bool = False  # watches neither tell nor end
    lists: int = 0
    watches: int = 0
    forbid: str = ""  # a part of the path of which nothing is written
    writes: int = 0
    _events: list[tuple[int, str, str, Json, Json]] = field(default_factory=list)  # version, path, what, object, before
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _cut: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, kind: Kind, name: str, namespace: str = "", **parts: Any) -> None:
        """Create or replace an object."""
        path = kind.path(namespace, name)
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
        await self._store(path, {"metadata": metadata, **parts})

    async def delete(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Remove an object."""
        await self._drop(kind.path(namespace, name))

    async def _store(self, path: str, found: Json) -> None:
        self.version += 1
        before = self.objects.get(path, {})
        uid = before["metadata"]["uid"] if before else f"uid-{self.version}"
        managers = before["metadata"].get("managedFields", []) if before else []
        found["metadata"] = {"managedFields": managers, **found["metadata"]}  # who replaces one leaves them
        found["metadata"] |= {"uid": uid, "resourceVersion": str(self.version)}
        self.objects[path] = found
        await self._tell(path, "MODIFIED" if before else "ADDED", found, before)

    async def _drop(self, path: str) -> None:
        self.version += 1
        gone = self.objects.pop(path)
        told = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        await self._tell(path, "DELETED", told, gone)

    def restore(self, objects: dict[str, Json], version: int) -> None:
        """Be what the server was before, as by a backup of its store: no watch is told."""
        self.objects, self.version = objects, version
        self._events.clear()

    async def cut(self) -> None:
        """End every watch there is."""
        self._cut.set()
        async with self._changed:
            self._changed.notify_all()
        self._cut = asyncio.Event()

    async def _tell(self, path: str, what: str, found: Json, before: Json) -> None:
        async with self._changed:
            self._events.append((self.version, path, what, json.loads(json.dumps(found)), before))
            self._changed.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        if self.unreadable:
            return web.Response(text="<html>")
        if self.refuse:
            status = {"kind": "Status", "code": self.refuse, "message": f"refused with {self.refuse}"}
            return web.json_response(status, status=self.refuse)
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method != "GET":
            return await self._write(request)
        self.lists += 1
        found = [
            one for path, one in sorted(self.objects.items()) if _is_below(path, request) and _is_meant(one, request)
        ]
        start, size = int(request.query.get("continue") or 0), int(request.query.get("limit") or 500)
        more = {"continue": str(start + size)} if start + size < len(found) else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return web.json_response({"metadata": metadata, "items": found[start : start + size]})

    async def _write(self, request: web.Request) -> web.Response:
        """Apply an object on top of what is there, or remove it."""
        if self.forbid and self.forbid in request.path:
            return web.json_response({"message": f"forbidden: {request.method}"}, status=403)
        self.writes += 1
        if request.method == "DELETE":
            await self._drop(request.path)
            return web.json_response({})
        body, there = await request.json(), self.objects.get(request.path, {"metadata": {}})
        metadata = {**there["metadata"], **body["metadata"]}
        applied = {"manager": request.query.get("fieldManager"), "operation": "Apply"}
        metadata["managedFields"] = [applied, *(one for one in metadata.get("managedFields", ()) if one != applied)]
        metadata["labels"] = {**(there["metadata"].get("labels") or {}), **(body["metadata"].get("labels") or {})}
        made = {**there, **body, "metadata": metadata, "data": {**(there.get("data") or {}), **body["data"]}}
        await self._store(request.path, made)
        return web.json_response(made)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        answer = web.StreamResponse()
        await answer.prepare(request)
        while self.hang:  # noqa: ASYNC110  ended by the test or the client
            await asyncio.sleep(0.01)
        if self.expire_watches:
            await _send(answer, {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
            return answer
        seen, cut = int(request.query["resourceVersion"]), self._cut
        ends = asyncio.get_running_loop().time() + int(request.query["timeoutSeconds"])
        while not cut.is_set() and (left := ends - asyncio.get_running_loop().time()) > 0:
            for version, path, what, found, before in list(self._events):
                if version > seen and _is_below(path, request):
                    if _is_meant(found, request):
                        await _send(answer, {"type": what, "object": found})
                    elif before and _is_meant(before, request):
                        await _send(answer, {"type": "DELETED", "object": found})
                seen = max(seen, version)
            await self._wait(left, seen)
        return answer

    async def _wait(self, longest_s: float, seen: int) -> None:
        try:
            async with asyncio.timeout(longest_s), self._changed:
                if self.version == seen or not self._events:
                    await self._changed.wait()
        except TimeoutError:
            pass


def _is_below(path: str, request: web.Request) -> bool:
    asked, plural = request.path, request.path.rpartition("/")[2]
    if "/namespaces/" in asked:
        return path.startswith(f"{asked}/")
    root = asked.removesuffix(f"/{plural}")
    return path.startswith(f"{root}/") and path.split("/")[-2] == plural


def _is_meant(found: Json, request: web.Request) -> bool:
    """Whether the selectors of a request mean an object: ``label``, ``label=value``, ``metadata.name=value``."""
    labels = found["metadata"].get("labels") or {}
    words = [word.partition("=") for word in request.query.get("labelSelector", "").split(",") if word]
    name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    is_named = not name or found["metadata"]["name"] == name
    return is_named and all(key in labels and (not sign or labels[key] == value) for key, sign, value in words)


async def _send(answer: web.StreamResponse, event: Json) -> None:
    await answer.write(json.dumps(event).encode() + b"\n")


@asynccontextmanager
async def kube_server() -> AsyncIterator[tuple[KubeServer, KubeApi]]:
    """Serve one, and a client of it."""
    server = KubeServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with (
        TestServer(app, shutdown_timeout=0) as serving,
        httpx2.AsyncClient(base_url=str(serving.make_url(""))) as http,
    ):
        yield server, KubeApi(http)
