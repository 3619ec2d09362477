"""The answers that Envoy gives by itself to calls of gRPC: a status, and a message in words. Pure.

Envoy makes trailers of them, with a status by a table of its own where none is said: UNIMPLEMENTED for 404, UNKNOWN
for 408. What was looked for is not told back: it may hold a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from catalog import inference
from extauth.grpc.refusals import (
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    NOT_FOUND,
    REASON_HEADER,
    STATUS_HEADER,
    UNAVAILABLE,
    UNIMPLEMENTED,
)
from extauth.reasons import Reason
from publisher.envoy.files import Json
from publisher.envoy.listener.conditions import (
    AWAY,
    CHECKED,
    NO_ROUTE,
    both,
    checks_reason,
    either,
    header_is,
    header_matches,
    status_is,
)

_NOT_FOUND: Final = (
    "No model of this name is published at this host for gRPC: name one by the metadata "
    f"'{inference.MODEL_HEADERS[0]}', by what its path has behind /models/."
)
_NOT_SERVED: Final = f"This method is not served: of gRPC, {inference.SERVICE} with {', '.join(inference.METHODS)}."
_CANNOT_CHECK: Final = "The gateway cannot check calls at the moment; try again shortly."


def grpc_replies() -> Iterator[Json]:
    """The first that fits is taken; they go before those in OpenAI's shape, which gRPC's callers cannot read.

    What is published for others is told as what is not there: by the call's path alone, whoever says it.
    """
    model = either(*(header_is(":path", f"{inference.ROOT}/{method}") for method in inference.METHODS))
    missing = either(both(CHECKED, checks_reason(Reason.NO_PUBLICATION.value)), NO_ROUTE)
    yield _reply(both(missing, model), NOT_FOUND, "no_publication", _NOT_FOUND)
    yield _reply(missing, UNIMPLEMENTED, "not_served", _NOT_SERVED)
    yield _reply(both(CHECKED, checks_reason(None)), UNAVAILABLE, "gate_unavailable", _CANNOT_CHECK)
    yield _reply(both(CHECKED, status_is(503)), UNAVAILABLE, "", _CANNOT_CHECK)  # of one that asked in vain: in JSON
    yield {"filter": both(_IS_GRPC, CHECKED)}
    yield _reply(
        status_is(400),
        INVALID_ARGUMENT,
        "malformed_request",
        "A header of the call is malformed or can be read in two ways (%RESPONSE_CODE_DETAILS%).",
    )
    yield _reply(
        status_is(401),
        UNAVAILABLE,
        "upstream_unavailable",
        "The model's server cannot be called: the gateway has no credential for it.",
    )
    late = either(status_is(408), status_is(504))
    yield _reply(
        late,
        DEADLINE_EXCEEDED,
        "deadline_exceeded",
        "The call took longer than its deadline or the gateway's allows (%RESPONSE_CODE_DETAILS%).",
    )
    yield _reply(AWAY, UNAVAILABLE, "upstream_unavailable", "The model's server did not answer.")


_IS_GRPC: Final = header_matches("content-type", r"application/grpc(\+.*)?")


def _reply(condition: Json, status: int, reason: str, message: str) -> Json:
    text = {"text_format_source": {"inline_string": message}}
    headers = {STATUS_HEADER: str(status)} | ({REASON_HEADER: reason} if reason else {})
    added = [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in headers.items()
    ]
    return {"filter": both(_IS_GRPC, condition), "body_format_override": text, "headers_to_add": added}
