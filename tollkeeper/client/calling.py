"""Calls to the admin API. What it refuses, and that it cannot be reached, is an ``ApiError`` with words for people."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx2

from runtime.version import VERSION
from tollkeeper.client.session import Session, is_here

CONNECT_S: Final = 5.0
ANSWER_S: Final = 40.0
"""The API ends a call by itself before that."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one answer: far more than a page of the longest items."""
PAGE: Final = 500
MOST_PAGES: Final = 10_000
_MOST_WAIT_DIGITS: Final = 9

Json = dict[str, Any]  # every answer of the API that has a body is an object
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule of a body or query."""

    field: str
    message: str


class ApiError(Exception):
    """The API refused, or could not be asked."""

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        status: int = 0,
        faults: Sequence[Fault] = (),
        request_id: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code  # "" where no answer of the API's came
        self.status = status  # 0: none came
        self.faults = tuple(faults)
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class Api:
    """One admin API, asked as one user. A context manager that owns its connections."""

    def __init__(self, url: str, token: str | None = None, ca: str = "", *, patience_s: float = ANSWER_S) -> None:
        """Raise ``ApiError`` where the address, a proxy or the file of authorities cannot be used."""
        headers = {"User-Agent": f"tollkeeper/{VERSION}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._url = url
        self._patience_s = patience_s
        try:
            self._client = httpx2.Client(
                base_url=url,
                headers=headers,
                timeout=httpx2.Timeout(patience_s, connect=min(CONNECT_S, patience_s)),
                verify=_trusted(ca),
                follow_redirects=False,
                trust_env=not is_here(url),  # what goes to this machine alone does not go by a proxy
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:  # of proxies in the environment, too
            raise ApiError(f"{url} cannot be asked: {_why(error)}") from error

    @classmethod
    def of(cls, session: Session, *, patience_s: float = ANSWER_S) -> Api:
        """The API of a session."""
        return cls(session.url, session.token, session.ca, patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, *, body: Json | None = None, query: Mapping[str, str] | None = None) -> Json:
        """Return what the API answers, {} where it has no body; raises ``ApiError``."""
        try:
            with self._client.stream(method, path, json=body, params=query) as answer:
                content = self._read(answer)
        except httpx2.TimeoutException as error:
            raise ApiError(f"{self._url} did not answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:  # ValueError: no name of a host
            raise ApiError(f"{self._url} cannot be reached: {_why(error)}") from error
        told = _object_of(content)
        if not answer.is_success:
            raise _refusal(answer, told, self._url)
        if content and told is None:
            raise _no_api(self._url)
        return told or {}

    def _read(self, answer: httpx2.Response) -> bytes:
        """Read a body that is not too long, within the patience for all of it."""
        ends_s = time.monotonic() + self._patience_s
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise ApiError(f"{self._url} answered more than {MOST_BYTES:,} bytes: is it an admin API?")
            if time.monotonic() > ends_s:
                raise ApiError(f"{self._url} did not answer in time")
        return bytes(content)

    def pages(self, path: str, query: Mapping[str, str], most: int | None = None) -> Iterator[Json]:
        """Yield the items of a list, page after page, ``most`` of them; raises ``ApiError``."""
        left, cursor = most, ""
        for _ in range(MOST_PAGES):
            size = PAGE if left is None else min(PAGE, left)
            page = self.ask("GET", path, query={**query, "limit": str(size), **({"cursor": cursor} if cursor else {})})
            items, damaged = needed(page, "items", list), page.get("damaged", [])
            if not isinstance(damaged, list) or not all(isinstance(one, dict) for one in (*items, *damaged)):
                raise _no_api(self._url)
            yield from items
            yield from damaged
            left = None if left is None else left - len(items)
            cursor = str(page.get("next") or "")
            if not cursor or left == 0:
                return


def needed(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return what an answer of the API has; raises ``ApiError`` where it has not: it is another server's."""
    value = answer.get(name)
    if not isinstance(value, kind):
        raise ApiError(f"the answer has no {name}: is it an admin API, of this release?")
    return value


def place(template: str, **words: str) -> str:
    """Fill in a path: ``place("/api/keys/{id}", id="a/b")`` is ``/api/keys/a%2Fb``."""
    return template.format(**{name: quote(word, safe="") for name, word in words.items()})


def _trusted(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ApiError(f"{ca} is no file of certificates that can be read") from error


def _why(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _object_of(content: bytes) -> Json | None:
    """Read an object; None: it is something else."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _no_api(url: str) -> ApiError:
    return ApiError(f"{url} answered something else than the API does: is it an admin API?")


def _refusal(answer: httpx2.Response, told: Json | None, url: str) -> ApiError:
    if told is None or not isinstance(told.get("code"), str):
        return ApiError(f"{url} answered {answer.status_code}: is it an admin API?", status=answer.status_code)
    errors = told.get("errors")
    listed = errors if isinstance(errors, list) else []
    faults = [Fault(str(one.get("field", "")), str(one.get("message", ""))) for one in listed if isinstance(one, dict)]
    after = answer.headers.get("retry-after", "")
    is_number = after.isascii() and after.isdecimal() and len(after) <= _MOST_WAIT_DIGITS
    return ApiError(
        str(told.get("detail") or told.get("title") or told["code"]),
        code=told["code"],
        status=answer.status_code,
        faults=faults,
        request_id=str(told.get("requestId", "")),
        retry_after_s=int(after) if is_number else None,
    )
