"""Calls to the admin API. What it refuses, and that it cannot be reached, is an ``ApiError`` with words for people."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2

from runtime.version import VERSION
from tollkeeper.client.session import Session

CONNECT_S: Final = 5.0
ANSWER_S: Final = 40.0
"""The API ends a call by itself before that."""
PAGE: Final = 500
MOST_PAGES: Final = 10_000

Json = Any  # what JSON can be


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
        """Raise ``ApiError`` where the file of authorities cannot be used."""
        headers = {"User-Agent": f"tollkeeper/{VERSION}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._url = url
        self._client = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(patience_s, connect=min(CONNECT_S, patience_s)),
            verify=_trusted(ca),
            follow_redirects=False,
        )

    @classmethod
    def of(cls, session: Session, *, patience_s: float = ANSWER_S) -> Api:
        """The API of a session."""
        return cls(session.url, session.token, session.ca, patience_s=patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, *, body: Json = None, query: Mapping[str, str] | None = None) -> Json:
        """Return what the API answers, None where it has no body; raises ``ApiError``."""
        try:
            answer = self._client.request(method, path, json=body, params=query)
        except httpx2.TimeoutException as error:
            raise ApiError(f"{self._url} did not answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ApiError(f"{self._url} cannot be reached: {_why(error)}") from error
        if answer.is_success:
            return _json_of(answer) if answer.content else None
        raise _refusal(answer, self._url)

    def pages(self, path: str, query: Mapping[str, str], most: int | None = None) -> Iterator[Json]:
        """Yield the items of a list, page after page, ``most`` of them; raises ``ApiError``."""
        left, cursor = most, ""
        for _ in range(MOST_PAGES):
            size = PAGE if left is None else min(PAGE, left)
            page = self.ask("GET", path, query={**query, "limit": str(size), **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            yield from page.get("damaged", ())
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next") or ""
            if not cursor or left == 0:
                return


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


def _json_of(answer: httpx2.Response) -> Json:
    try:
        return answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ApiError(
            f"{answer.url} answered {answer.status_code} with something else than JSON: is it an admin API?",
            status=answer.status_code,
        ) from error


def _refusal(answer: httpx2.Response, url: str) -> ApiError:
    try:
        told = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("code"), str):
        return ApiError(f"{url} answered {answer.status_code}: is it an admin API?", status=answer.status_code)
    faults = [Fault(str(one.get("field", "")), str(one.get("message", ""))) for one in told.get("errors") or ()]
    after = answer.headers.get("retry-after", "")
    return ApiError(
        str(told.get("detail") or told.get("title") or told["code"]),
        code=told["code"],
        status=answer.status_code,
        faults=faults,
        request_id=str(told.get("requestId", "")),
        retry_after_s=int(after) if after.isdecimal() else None,
    )
