"""What a new machine holds, made over the admin API as any operator would.

All is made once: what the operator changes, deletes, unpublishes or rotates afterwards stays so.
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


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier starts left to know of a sample."""

    handed_out: bool  # the operator was told a key once: publication and key are theirs since
    known_key: str  # as ``up.json`` has it; "" where it has none
    is_lost: bool  # ``up.json`` itself is gone, and with it every key text


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that is published."""

    model: str
    host: str
    api_key: str  # "" where only the operator can know it
    is_key_replaced: bool = False  # by this start, because the text of the one before was lost

    def shown(self) -> Json:
        """Return it as ``up.json`` tells it."""
        return {"model": self.model, "host": self.host, "api_key": self.api_key}


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

    async def login(self, username: str, password: str) -> bool:
        """Log in, if that is the password; all further calls are this user's."""
        good = {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}
        answer = await self.call("POST", "/api/admin/login", {"username": username, "password": password}, good)
        if answer["http_status"] == HTTPStatus.UNAUTHORIZED:
            return False
        self.use(answer["token"])
        return True

    def use(self, token: str) -> None:
        """Go on with a token."""
        self._session.headers["Authorization"] = f"Bearer {token}"

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


async def published_sample(client: AdminClient, model: str, past: Past) -> Sample | None:
    """Return a sample as it is, or published now if it never was; None where the operator unpublished it.

    A key text is only known to who got it. A key that ``up.json`` does not know was made by the operator and is left
    alone; it is rotated only where nobody can have its text.
    """
    shown = await client.call("GET", _path(model), None, {HTTPStatus.OK, HTTPStatus.NOT_FOUND})
    if shown["http_status"] == HTTPStatus.NOT_FOUND:
        return None if past.handed_out else await _publish(client, model)
    host = shown["publicHostname"]
    if await _is_accepted(client, past.known_key, model):
        return Sample(model, host, past.known_key)
    if past.handed_out and not past.is_lost:
        return Sample(model, host, "")
    rotated = await client.call("POST", rotation_path(model), None, {HTTPStatus.OK})
    return Sample(model, host, rotated["apiKey"], is_key_replaced=True)


async def _publish(client: AdminClient, model: str) -> Sample:
    body = {"config": {"tenantId": SAMPLE_TENANT}}
    made = await client.call("POST", f"/api/models/{model}/publish", body, {HTTPStatus.CREATED})
    return Sample(model, made["publicHostname"], made["apiKey"])


def _path(model: str) -> str:
    return f"/api/models/{model}/publish?tenantId={SAMPLE_TENANT}"


def rotation_path(model: str) -> str:
    """Return the path of the call that makes a new key for a sample."""
    return f"/api/models/{model}/publish/rotate-key?tenantId={SAMPLE_TENANT}"


async def _is_accepted(client: AdminClient, key: str, model: str) -> bool:
    if not key:
        return False
    answer = await client.call("POST", "/api/validate-api-key", {"apiKey": key}, {HTTPStatus.OK})
    return bool(answer["valid"]) and answer.get("modelName") == model


async def is_live(client: AdminClient, model: str) -> bool:
    """Whether Envoy serves the sample."""
    answer = await client.call("GET", _path(model), None, {HTTPStatus.OK})
    return bool(answer["status"] == "live")
