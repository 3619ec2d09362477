"""What a new machine holds, made over the admin API as any operator would.

The guide's tenants and models are made once: what the operator changes or deletes stays so. The samples, whose
calls are printed at each start, are there at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from runtime.lifecycle import CannotStart
from tollkeeper.up.machine import CHAT, IRIS, Machine

SAMPLE_TENANT: Final = "sample"
CALL_S: Final = 15.0
"""Longest wait for one answer of the admin API, in seconds: a login alone may take one on a busy machine."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seedling:
    """Something that is made once: a name to remember it by, and the request that makes it."""

    name: str
    path: str
    body: Json


def guide_seedlings(machine: Machine) -> list[Seedling]:
    """Return the guide's tenants and models; none of them is published."""
    return [
        _tenant("tenant-a"),
        _tenant("tenant-b"),
        _model("my-model", "tenant-a", machine.kserve_url),
        _model("my-llm", "tenant-a", machine.openai_url),
        _model("tenant-b-model", "tenant-b", machine.kserve_url),
    ]


def sample_seedlings(machine: Machine) -> list[Seedling]:
    """Return the samples' tenant and models."""
    return [
        _tenant(SAMPLE_TENANT),
        _model(IRIS, SAMPLE_TENANT, machine.kserve_url),
        _model(CHAT, SAMPLE_TENANT, machine.openai_url),
    ]


def _tenant(name: str) -> Seedling:
    return Seedling(f"tenant:{name}", "/api/tenants", {"tenantId": name})


def _model(name: str, tenant: str, url: str) -> Seedling:
    return Seedling(f"model:{tenant}/{name}", "/api/models", {"name": name, "tenantId": tenant, "url": url})


class AdminClient:
    """The admin API, logged in."""

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=CALL_S))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def login(self, username: str, password: str) -> None:
        """Log in; all further calls are this user's."""
        answer = await self.call(
            "POST", "/api/admin/login", {"username": username, "password": password}, {HTTPStatus.OK}
        )
        self._session.headers["Authorization"] = f"Bearer {answer['token']}"

    async def call(self, method: str, path: str, body: Json | None, good: set[HTTPStatus]) -> Json:
        """Return the answer's object with its ``status`` code added; raises ``CannotStart`` unless that is good."""
        try:
            async with self._session.request(method, path, json=body) as response:
                answer: Json = await response.json(content_type=None) or {}
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CannotStart(f"the admin API did not answer {method} {path}: {error}") from error
        if status not in good:
            raise CannotStart(f"the admin API answered {method} {path} with {status}: {_why(answer)}")
        return answer | {"http_status": status}


def _why(problem: Mapping[str, Any]) -> str:
    return " ".join(str(problem[part]) for part in ("code", "title", "detail") if problem.get(part))


async def seed(client: AdminClient, seedlings: list[Seedling], remembered: set[str]) -> None:
    """Make what is not remembered, and remember it; what exists already is left as it is."""
    for one in seedlings:
        if one.name not in remembered:
            await client.call("POST", one.path, one.body, {HTTPStatus.CREATED, HTTPStatus.CONFLICT})
            remembered.add(one.name)


async def published_sample(client: AdminClient, model: str, known_key: str) -> Json:
    """Return ``{model, host, api_key}`` of a published sample: as it is, or published now.

    A key text is only known to who got it; when ``known_key`` is not accepted any more, the key is rotated.
    """
    path = f"/api/models/{model}/publish"
    query = f"?tenantId={SAMPLE_TENANT}"
    shown = await client.call("GET", path + query, None, {HTTPStatus.OK, HTTPStatus.NOT_FOUND})
    if shown["http_status"] == HTTPStatus.NOT_FOUND:
        body = {"config": {"tenantId": SAMPLE_TENANT}}
        shown = await client.call("POST", path, body, {HTTPStatus.CREATED})
        key = shown["apiKey"]
    elif await _is_accepted(client, known_key, model):
        key = known_key
    else:
        key = (await client.call("POST", f"{path}/rotate-key{query}", None, {HTTPStatus.OK}))["apiKey"]
    return {"model": model, "host": shown["publicHostname"], "api_key": key}


async def _is_accepted(client: AdminClient, key: str, model: str) -> bool:
    if not key:
        return False
    answer = await client.call("POST", "/api/validate-api-key", {"apiKey": key}, {HTTPStatus.OK})
    return bool(answer["valid"]) and answer.get("modelName") == model


async def is_live(client: AdminClient, model: str) -> bool:
    """Whether Envoy serves the sample."""
    path = f"/api/models/{model}/publish?tenantId={SAMPLE_TENANT}"
    answer = await client.call("GET", path, None, {HTTPStatus.OK})
    return bool(answer["status"] == "live")
