"""The answers that Envoy gives by itself: in OpenAI's shape, or in Anthropic's where that API is spoken. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from catalog.ids import ID_PATTERN
from catalog.keys.keytext import PREFIX
from extauth.answers.answers import OVERLOAD_RETRY_S, denial
from extauth.dialects import anthropic
from extauth.dialects.spoken import MESSAGES_PATHS, OTHER_MESSAGES, VERSION_HEADER
from extauth.reasons import Reason
from publisher.envoy.files import Json, error_body
from publisher.envoy.listener.conditions import (
    AWAY,
    CHECKED,
    NO_ROUTE,
    both,
    checks_reason,
    either,
    has,
    header_matches,
    status_is,
)
from publisher.envoy.listener.log import REQUEST_ID_HEADER

_MIB: Final = 1024 * 1024
_HOST: Final = "%REQ(:AUTHORITY):253%"
_PATH: Final = "%PATH(NQ):512%"
"""Without the query, where secrets may stand."""
_REQUEST_ID: Final = f"%REQ({REQUEST_ID_HEADER})%"

MAX_HEADERS_KB: Final = 32
MAX_HEADERS: Final = 100
"""Most of a request's headers."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer: to which calls, and what it says in OpenAI's words."""

    condition: Json
    status: int
    error: Mapping[str, Any]
    instead_of: int = 0  # the status that Envoy would give; 0: it gives this one
    headers: Mapping[str, str] = field(default_factory=dict)
    in_form: bool = False  # it quotes the call: each text of it is written as JSON wants it


def too_large(max_body_bytes: int) -> str:
    """The answer 413 to a body above the bound, in OpenAI's shape."""
    return json.dumps({"error": _too_large(max_body_bytes)})


def local_replies(max_body_bytes: int) -> list[Json]:
    """Bodies for the answers Envoy gives by itself; the first that fits is taken.

    Check's answers come first, by their flag, and keep their own but for two. ``max_body_bytes``: above it 413.
    """
    spoken = _speaks_anthropic()
    mappers = []
    for reply in _replies(max_body_bytes):
        if reply is None:
            mappers.append({"filter": CHECKED})
        else:
            mappers += [_in_anthropics(reply, spoken), _in_openais(reply)]
    return mappers


def _replies(max_body_bytes: int) -> Iterator[_Reply | None]:
    """In their order; ``None``: what Check has said stays as it is."""
    not_here = both(CHECKED, checks_reason(Reason.NO_PUBLICATION.value))
    nowhere = _nowhere()
    yield _Reply(both(either(not_here, NO_ROUTE), _shows_a_key()), 404, _of(Reason.NO_PUBLICATION))
    yield _Reply(not_here, 404, nowhere, in_form=True)
    yield _unchecked()
    yield None
    yield _no_upgrade()
    yield _Reply(NO_ROUTE, 404, nowhere, in_form=True)
    # Of a model that Check has named and Envoy does not serve yet; or, on Envoy Gateway, that is none of the host's.
    yield _Reply(status_is(404), 404, _of(Reason.MODEL_NOT_FOUND))
    yield from _faults(max_body_bytes)


def _faults(max_body_bytes: int) -> Iterator[_Reply]:
    """What is wrong with a call, or with the model's server."""
    malformed = (
        "The request's path, a header or its framing is malformed or can be read in two ways"
        " (%RESPONSE_CODE_DETAILS%)."  # the rule that it breaks, in Envoy's own word
    )
    long = f"The request's headers are more than {MAX_HEADERS_KB} KiB together, or more than {MAX_HEADERS}."
    slow = "The request took too long to arrive."
    yield _Reply(status_is(400), 400, _error(malformed, "malformed_request"))
    # Envoy itself says 401, by which callers would doubt their own key.
    no_credential = "The model's server cannot be called: the gateway has no credential for it."
    yield _Reply(status_is(401), 503, _error(no_credential, _UNAVAILABLE, "server_error"), instead_of=401)
    yield _Reply(status_is(408), 408, _error(slow, "request_timeout"))
    yield _Reply(status_is(413), 413, _too_large(max_body_bytes))
    yield _Reply(status_is(431), 431, _error(long, "request_headers_too_large"))
    late = "The model's server did not answer in time."
    yield _Reply(status_is(504), 504, _error(late, "upstream_timeout", "server_error"))
    yield _Reply(AWAY, 503, _error("The model's server did not answer.", _UNAVAILABLE, "server_error"))


_UNAVAILABLE: Final = "upstream_unavailable"


def _error(message: str, code: str, kind: str = "invalid_request_error") -> Mapping[str, Any]:
    error: Mapping[str, Any] = json.loads(error_body(message=message, kind=kind, code=code))["error"]
    return error


def _of(reason: Reason) -> dict[str, Any]:
    """The gate's own words for it."""
    error: dict[str, Any] = json.loads(denial(reason).body)["error"]
    return error


def _too_large(max_body_bytes: int) -> Mapping[str, Any]:
    most = f"{max_body_bytes} bytes" if max_body_bytes % _MIB else f"{max_body_bytes // _MIB} MiB"
    message = f"The request's body is larger than {most}, the most that this gateway takes."
    return _error(message, "request_too_large")


def _unchecked() -> _Reply:
    """What is answered while no gate says whether a call may pass: Envoy itself would say 503 and no word."""
    nobody = both(CHECKED, status_is(503), checks_reason(None))
    message = "The gateway cannot check calls at the moment; try again shortly."
    error = _error(message, "gate_unavailable", "service_unavailable")
    return _Reply(nobody, 503, error, headers={"retry-after": str(OVERLOAD_RETRY_S)})


def _no_upgrade() -> _Reply:
    """What a handshake of WebSocket, or of any other protocol, is answered: Envoy itself would say 403 and no word.

    Clients that try one first, as Codex does, go on by POST then.
    """
    message = "No connection is upgraded here, to WebSocket or else: send the call as an HTTP POST ('stream': true)."
    refused = both(status_is(403), has("upgrade"))
    error = _error(message, "upgrade_not_supported")
    return _Reply(refused, 426, error, instead_of=403, headers={"x-should-retry": "false"})


def _nowhere() -> Mapping[str, Any]:
    """What is published nowhere, and what is not for this caller, are answered alike: with what was looked for."""
    told = {"message": f"Nothing is published at {_HOST}{_PATH}.", "host": _HOST, "path": _PATH}
    return _of(Reason.NO_PUBLICATION) | told


# In which words


def _in_openais(reply: _Reply) -> Json:
    body = {"error": dict(reply.error)}
    text = {"json_format": body} if reply.in_form else {"text_format_source": {"inline_string": json.dumps(body)}}
    return _mapper(reply, reply.condition, text, reply.headers)


def _in_anthropics(reply: _Reply, spoken: Json) -> Json:
    body = anthropic.error_body(reply.status, reply.error, _REQUEST_ID)
    headers = {**reply.headers, anthropic.REQUEST_ID: _REQUEST_ID}
    return _mapper(reply, both(reply.condition, spoken), {"json_format": body}, headers)


def _mapper(reply: _Reply, condition: Json, text: Json, headers: Mapping[str, str]) -> Json:
    mapper: Json = {"filter": condition, "body_format_override": text | {"content_type": "application/json"}}
    if reply.instead_of:
        mapper["status_code"] = reply.status
    if headers:
        mapper["headers_to_add"] = [_header(name, value) for name, value in headers.items()]
    return mapper


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _speaks_anthropic() -> Json:
    """The calls that the gate answers in Anthropic's words, as far as Envoy knows them (``dialects.spoken``)."""
    messages = both(header_matches(":path", MESSAGES_PATHS), header_matches(":path", OTHER_MESSAGES, invert=True))
    return either(messages, has(VERSION_HEADER))


# To which calls


def _shows_a_key() -> Json:
    """What was looked for may hold a key, and is then not told back: answers are written down too."""
    mark = {"safe_regex": {"regex": f".*{PREFIX}{ID_PATTERN}_.*"}}
    names = (":path", ":authority")
    return either(*({"header_filter": {"header": {"name": name, "string_match": mark}}} for name in names))
