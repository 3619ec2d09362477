"""The answers that Envoy gives by itself, in OpenAI's shape. Pure."""

from __future__ import annotations

import json
from typing import Final

from catalog.ids import ID_PATTERN
from catalog.keys.keytext import PREFIX
from extauth.answers.answers import denial
from extauth.reasons import Reason
from publisher.envoy.bodies import CHECK_FILTER
from publisher.envoy.files import Json, error_body

_MIB: Final = 1024 * 1024
_CHECKED: Final[Json] = {"response_flag_filter": {"flags": ["UAEX"]}}
_HOST: Final = "%REQ(:AUTHORITY):253%"
_PATH: Final = "%PATH(NQ):512%"
"""Without the query, where secrets may stand."""

MAX_HEADERS_KB: Final = 32
MAX_HEADERS: Final = 100
"""Most of a request's headers."""


def too_large(max_body_bytes: int) -> str:
    """The answer 413 to a body above the bound."""
    most = f"{max_body_bytes} bytes" if max_body_bytes % _MIB else f"{max_body_bytes // _MIB} MiB"
    return error_body(
        message=f"The request's body is larger than {most}, the most that this gateway takes.",
        kind="invalid_request_error",
        code="request_too_large",
    )


def local_replies(max_body_bytes: int) -> list[Json]:
    """Bodies for the answers Envoy gives by itself, in OpenAI's shape; the first that fits is taken.

    Check's answers come first, by their flag, and keep their own but for one. ``max_body_bytes``: above it 413.
    """
    no_model = denial(Reason.MODEL_NOT_FOUND).body  # of a model that Check has named and Envoy does not serve yet
    nowhere = _both({"response_flag_filter": {"flags": ["NC"]}}, {"status_code_filter": _status_is(404)})
    malformed = error_body(
        message="The request's path, a header or its framing is malformed or can be read in two ways"
        " (%RESPONSE_CODE_DETAILS%).",  # the rule that it breaks, in Envoy's own word
        kind="invalid_request_error",
        code="malformed_request",
    )
    long = error_body(
        message=f"The request's headers are more than {MAX_HEADERS_KB} KiB together, or more than {MAX_HEADERS}.",
        kind="invalid_request_error",
        code="request_headers_too_large",
    )
    slow = error_body(
        message="The request took too long to arrive.", kind="invalid_request_error", code="request_timeout"
    )
    late = error_body(
        message="The model's server did not answer in time.", kind="server_error", code="upstream_timeout"
    )
    upstream = error_body(
        message="The model's server did not answer.", kind="server_error", code="upstream_unavailable"
    )
    no_credential = error_body(  # Envoy itself says 401, by which callers would doubt their own key
        message="The model's server cannot be called: the gateway has no credential for it.",
        kind="server_error",
        code="upstream_unavailable",
    )
    not_here = _both(_CHECKED, _not_for_this_caller())
    no_route = {"response_flag_filter": {"flags": ["NR"]}}
    return [
        _reply(_both(_either(not_here, no_route), _shows_a_key()), denial(Reason.NO_PUBLICATION).body),
        _nowhere(not_here),
        {"filter": _CHECKED},
        _no_upgrade(),
        _nowhere(no_route),
        _reply(nowhere, no_model),
        _reply({"status_code_filter": _status_is(400)}, malformed),
        _reply({"status_code_filter": _status_is(401)}, no_credential) | {"status_code": 503},
        _reply({"status_code_filter": _status_is(408)}, slow),
        _reply({"status_code_filter": _status_is(413)}, too_large(max_body_bytes)),
        _reply({"status_code_filter": _status_is(431)}, long),
        _reply({"status_code_filter": _status_is(504)}, late),
        _reply({"response_flag_filter": {"flags": ["UF", "UH", "UC", "UO", "UR", "UPE", "NC"]}}, upstream),
    ]


def _no_upgrade() -> Json:
    """What a handshake of WebSocket, or of any other protocol, is answered: Envoy itself would say 403 and no word.

    Clients that try one first, as Codex does, go on by POST then.
    """
    body = error_body(
        message="No connection is upgraded here, to WebSocket or else: send the call as an HTTP POST ('stream': true).",
        kind="invalid_request_error",
        code="upgrade_not_supported",
    )
    asked = {"header_filter": {"header": {"name": "upgrade", "present_match": True}}}
    refused = {"status_code_filter": _status_is(403)}
    reply = _reply(_both(refused, asked), body)
    final = {"header": {"key": "x-should-retry", "value": "false"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return reply | {"status_code": 426, "headers_to_add": [final]}


def _nowhere(condition: Json) -> Json:
    """What is published nowhere, and what is not for this caller, are answered alike: with what was looked for."""
    error = json.loads(denial(Reason.NO_PUBLICATION).body)["error"]
    error |= {"message": f"Nothing is published at {_HOST}{_PATH}.", "host": _HOST, "path": _PATH}
    text = {"json_format": {"error": error}, "content_type": "application/json"}
    return {"filter": condition, "body_format_override": text}


def _shows_a_key() -> Json:
    """What was looked for may hold a key, and is then not told back: answers are written down too."""
    mark = {"safe_regex": {"regex": f".*{PREFIX}{ID_PATTERN}_.*"}}
    names = (":path", ":authority")
    return _either(*({"header_filter": {"header": {"name": name, "string_match": mark}}} for name in names))


def _both(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}


def _either(*filters: Json) -> Json:
    return {"or_filter": {"filters": list(filters)}}


def _not_for_this_caller() -> Json:
    """Check's own word for it."""
    value = {"string_match": {"exact": Reason.NO_PUBLICATION.value}}
    matcher = {"filter": CHECK_FILTER, "path": [{"key": "reason"}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _reply(condition: Json, body: str) -> Json:
    text = {"text_format_source": {"inline_string": body}, "content_type": "application/json"}
    return {"filter": condition, "body_format_override": text}


def _status_is(status: int) -> Json:
    value = {"default_value": status, "runtime_key": "tollkeeper.unused"}
    return {"comparison": {"op": "EQ", "value": value}}
