"""Asking the Kubernetes API: objects as JSON, one request at a time, and the events of a watch.

Owns the connection and its bounds, and what an answer that is none means. Address, login and certificates lie where
every client of a cluster looks for them: the service account of a pod, else ``$KUBECONFIG``, else ``~/.kube/config``.
Knows no kind of object but namespaces, which all others lie in.
"""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

from runtime.lifecycle import CannotStart

REQUEST_S: Final = 10.0
"""Longest wait for an answer, in seconds; a watch has its own."""

APPLY: Final = "application/apply-patch+yaml"
"""The content type of server-side apply."""

Json = dict[str, Any]
_JSON: Final = "application/json"
_UNUSABLE: Final = (
    ConfigError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    msgspec.MsgspecError,
    yaml.YAMLError,
)


class Cause(enum.StrEnum):
    """Why the API did not do what was asked."""

    AWAY = "away"  # no answer, or none in time, or one of an overloaded or failing server
    REFUSED = "refused"  # not logged in, or not permitted
    MISSING = "missing"  # no such object, or no such kind
    CONFLICT = "conflict"  # the object has changed, or a field is another manager's
    EXPIRED = "expired"  # the version asked for is gone: list anew
    INVALID = "invalid"  # the object is not as the kind wants it
    UNREADABLE = "unreadable"  # an answer that is not the API's


class KubeFault(Exception):  # noqa: N818  an outcome
    """The API did not do what was asked: ``cause``, and its own words."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


_CAUSES: Final[Mapping[int, Cause]] = {
    HTTPStatus.UNAUTHORIZED: Cause.REFUSED,
    HTTPStatus.FORBIDDEN: Cause.REFUSED,
    HTTPStatus.NOT_FOUND: Cause.MISSING,
    HTTPStatus.CONFLICT: Cause.CONFLICT,
    HTTPStatus.GONE: Cause.EXPIRED,
    HTTPStatus.BAD_REQUEST: Cause.INVALID,
    HTTPStatus.UNPROCESSABLE_ENTITY: Cause.INVALID,
}


_WORDLESS: Final[Mapping[int, str]] = {HTTPStatus.NOT_FOUND: "the cluster has no such kind, in this version"}


_UNKNOWN_FIELD: Final = "failed to create typed patch object"
"""So the API words that an applied object has a field that its kind does not know, under status 500."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects as the API's paths name it."""

    group: str  # "serving.kserve.io"; empty for the core
    version: str  # "v1beta1"
    plural: str  # "inferenceservices"

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of one object, of a namespace's, or of all; names are the API's own, which need no quoting."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")

    def __str__(self) -> str:
        """As kubectl spells it: ``inferenceservices.serving.kserve.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES: Final = Kind("", "v1", "namespaces")


class KubeApi:
    """The API of one cluster. Every method raises ``KubeFault`` and nothing else."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = _JSON,
    ) -> Json:
        """Do one request within ``REQUEST_S`` and return the object that answers it."""
        content = None if body is None else json.dumps(body)
        headers = {"Accept": _JSON} | ({"Content-Type": content_type} if content else {})
        try:
            async with asyncio.timeout(REQUEST_S):
                response = await self._http.request(method, path, params=params, content=content, headers=headers)
        except (httpx2.HTTPError, ConfigError, OSError) as error:  # TimeoutError is an OSError
            raise _away(error) from error
        _require_success(response)
        return _read(response.content)

    @asynccontextmanager
    async def watch(self, path: str, params: Mapping[str, str], longest_s: float) -> AsyncIterator[AsyncIterator[Json]]:
        """Open a watch: the body begins when the server has taken it, and may iterate its events until it ends.

        One that outlasts ``longest_s`` is given up as one whose connection died unnoticed.
        """
        asked = self._http.stream("GET", path, params=params, headers={"Accept": _JSON}, timeout=longest_s)
        try:
            async with asyncio.timeout(longest_s), asked as answer:
                if not answer.is_success:
                    await answer.aread()
                _require_success(answer)
                yield _events(answer)
        except (httpx2.HTTPError, ConfigError, OSError) as error:
            raise _away(error) from error


async def _events(answer: httpx2.Response) -> AsyncIterator[Json]:
    async for line in answer.aiter_lines():
        yield _heard(_read(line.encode()))


@asynccontextmanager
async def kube_api(option: str, kubeconfig: Path | None = None) -> AsyncIterator[KubeApi]:
    """Open the API of a file's cluster, or of the one that this process belongs to; ``option`` is what asked for it."""
    try:
        config = (KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env()).get()
        if config is None:
            raise ConfigError("the kubeconfig has no current context")
        http = AsyncClient(config, ConnectionParams(timeout=httpx2.Timeout(REQUEST_S)))
    except _UNUSABLE as error:
        raise CannotStart(
            f"{option}: no cluster is known (--kubeconfig, service account, KUBECONFIG): {error}"
        ) from error
    async with http:
        yield KubeApi(http)


def _require_success(response: httpx2.Response) -> None:
    if not response.is_success:
        raise _fault(response.status_code, _said(response))


def _fault(status: int, message: str) -> KubeFault:
    """Read a refusal by its status; what is none of ours to mend will be over some time."""
    if message.startswith(_UNKNOWN_FIELD):
        return KubeFault(Cause.INVALID, message)
    return KubeFault(_CAUSES.get(status, Cause.AWAY), message)


def _said(response: httpx2.Response) -> str:
    """Return the server's own words, or its status where it has none."""
    try:
        message = _read(response.content).get("message")
    except KubeFault:
        message = None
    if isinstance(message, str) and message:
        return message
    return _WORDLESS.get(response.status_code, f"the API answered {response.status_code}")


def _away(error: Exception) -> KubeFault:
    return KubeFault(Cause.AWAY, f"the API cannot be reached: {str(error) or type(error).__name__}")


def _read(content: bytes) -> Json:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KubeFault(Cause.UNREADABLE, "the API answered with something that is no JSON object")
    return found


def _heard(event: Json) -> Json:
    """Return an event of a watch; one that tells of an error ends it."""
    found = event.get("object")
    if not isinstance(found, dict) or not isinstance(event.get("type"), str):
        raise KubeFault(Cause.UNREADABLE, "the API sent an event without an object")
    if event["type"] == "ERROR":
        raise _fault(int(found.get("code") or 0), str(found.get("message") or "the API ended a watch"))
    return event
