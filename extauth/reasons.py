"""Why a call was let through or refused: one closed list, and what each means on the wire. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Reason(enum.StrEnum):
    """The outcome of a Check; also the ``reason`` label of ``decisions_total``."""

    OK = "ok"
    MODELS_TOLD = "models_told"  # the gate itself answered which models a key may call
    PROBED = "probed"  # the publisher asked which publication the route names, and was told
    NO_PUBLICATION = "no_publication"
    KEY_MISSING = "key_missing"
    KEY_REPEATED = "key_repeated"
    KEY_IN_URL = "key_in_url"
    KEY_MALFORMED = "key_malformed"
    KEY_UNKNOWN = "key_unknown"
    PEPPER_UNKNOWN = "pepper_unknown"  # an operator's fault: our secrets file lacks a pepper of the key
    KEY_DISABLED = "key_disabled"
    KEY_EXPIRED = "key_expired"
    TENANT_DISABLED = "tenant_disabled"
    NOT_ALLOWED = "not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_MISSING = "model_missing"
    ENDPOINT_NOT_ALLOWED = "endpoint_not_allowed"  # of the model's server, and not open to callers
    METHOD_NOT_ALLOWED = "method_not_allowed"
    STORED_NOT_ALLOWED = "stored_not_allowed"  # what an earlier call made, where others than its tenant could ask
    BACKGROUND_NOT_ALLOWED = "background_not_allowed"
    BODY_NOT_JSON = "body_not_json"
    BODY_TYPE = "body_type"
    FORM_TYPE = "form_type"  # as BODY_TYPE, where a form may be sent
    BODY_ENCODED = "body_encoded"
    FIELD_INVALID = "field_invalid"
    FIELD_REPEATED = "field_repeated"
    FIELD_MISSPELT = "field_misspelt"
    LIMITED = "limited"
    TOO_MANY_ERRORS = "too_many_errors"  # a bad call of a good key, after as many as it may make
    NEVER_FITS = "never_fits"
    OVERLOADED = "overloaded"
    STORE_AWAY = "store_away"
    STORE_TIMEOUT = "store_timeout"
    STORE_LATE = "store_late"  # the store answers, but not in time for this call: overload, not an outage
    RECORDS_CHANGING = "records_changing"
    CROSS_CELL = "cross_cell"  # an operator's fault: key and model were placed under another number of cells
    STATE_UNREADABLE = "state_unreadable"
    NOT_GRPC = "not_grpc"
    CALL_UNREADABLE = "call_unreadable"
    FAULT = "fault"


class Outcome(enum.StrEnum):
    """The coarse ``outcome`` label of ``decisions_total``."""

    ALLOWED = "allowed"
    DENIED = "denied"
    LIMITED = "limited"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Wire:
    """A reason as the caller sees it: HTTP status and the error object of OpenAI's API."""

    status: int
    type: str
    code: str
    message: str
    outcome: Outcome
    param: str | None = None


def _unauthenticated() -> Wire:
    """One text for every way a key can be wrong: an attacker learns nothing from it."""
    message = (
        "No valid API key was given. Send one as 'X-API-Key: tk_…' or 'Authorization: Bearer tk_…'; "
        "a key that was rotated, revoked, disabled or has expired no longer works."
    )
    return Wire(401, "authentication_error", "invalid_api_key", message, Outcome.DENIED)


def _unavailable(code: str, message: str) -> Wire:
    return Wire(503, "service_unavailable", code, message, Outcome.ERROR)


def _not_found(message: str) -> Wire:
    return Wire(404, "invalid_request_error", "model_not_found", message, Outcome.DENIED, "model")


def _bad_request(code: str, message: str, *, status: int = 400, param: str | None = None) -> Wire:
    return Wire(status, "invalid_request_error", code, message, Outcome.DENIED, param)


def _not_permitted(code: str, message: str) -> Wire:
    return Wire(403, "permission_error", code, message, Outcome.DENIED)


UNAUTHENTICATED: Final = _unauthenticated()
_NO_MODEL = "The model does not exist or this key may not see it."
_STORE = "The gateway cannot check budgets at the moment; try again shortly."

WIRE: Final[Mapping[Reason, Wire]] = {
    Reason.OK: Wire(200, "", "", "", Outcome.ALLOWED),
    Reason.MODELS_TOLD: Wire(200, "", "", "", Outcome.ALLOWED),
    Reason.PROBED: Wire(200, "", "", "", Outcome.ALLOWED),
    Reason.NO_PUBLICATION: Wire(
        404, "invalid_request_error", "not_found", "Nothing is published here.", Outcome.DENIED
    ),
    Reason.KEY_MISSING: UNAUTHENTICATED,
    Reason.KEY_REPEATED: UNAUTHENTICATED,
    Reason.KEY_IN_URL: _bad_request(
        "key_in_url",
        "The request's URL holds an API key, and URLs are written into logs: send it as a header, 'X-API-Key: tk_…' or "
        "'Authorization: Bearer tk_…', and have this key replaced.",
    ),
    Reason.KEY_MALFORMED: UNAUTHENTICATED,
    Reason.KEY_UNKNOWN: UNAUTHENTICATED,
    Reason.PEPPER_UNKNOWN: UNAUTHENTICATED,
    Reason.KEY_DISABLED: UNAUTHENTICATED,
    Reason.KEY_EXPIRED: UNAUTHENTICATED,
    Reason.TENANT_DISABLED: UNAUTHENTICATED,
    Reason.NOT_ALLOWED: Wire(
        403, "permission_error", "model_not_allowed", "This key may not call this model.", Outcome.DENIED, "model"
    ),
    Reason.MODEL_NOT_FOUND: _not_found(_NO_MODEL),
    Reason.MODEL_MISSING: _bad_request("model_required", "The body must name a 'model', a string.", param="model"),
    Reason.ENDPOINT_NOT_ALLOWED: _not_permitted("endpoint_not_allowed", "This endpoint is not open at this model."),
    Reason.METHOD_NOT_ALLOWED: _bad_request("method_not_allowed", "This endpoint takes POST only.", status=405),
    Reason.STORED_NOT_ALLOWED: _not_permitted("stored_not_allowed", "What an earlier call made is not open here."),
    Reason.BACKGROUND_NOT_ALLOWED: _bad_request(
        "background_not_allowed", "'background' is not allowed at this model.", param="background"
    ),
    Reason.BODY_NOT_JSON: _bad_request("invalid_json", "The body must be a JSON object."),
    Reason.BODY_TYPE: _bad_request(
        "unsupported_media_type", "The body must be sent as 'Content-Type: application/json'.", status=415
    ),
    Reason.FORM_TYPE: _bad_request(
        "unsupported_media_type", "The body must be sent as 'Content-Type: multipart/form-data'.", status=415
    ),
    Reason.BODY_ENCODED: _bad_request(
        "unsupported_content_encoding",
        "The body must be sent without 'Content-Encoding', or in one that 'Accept-Encoding' of this answer names.",
        status=415,
    ),
    Reason.FIELD_INVALID: _bad_request("invalid_field", "A field of the body has a value that it cannot have."),
    Reason.FIELD_REPEATED: _bad_request("repeated_field", "A field of the body is there twice."),
    Reason.FIELD_MISSPELT: _bad_request("misspelt_field", "A field of the body is written in another case."),
    Reason.LIMITED: Wire(429, "rate_limit_error", "rate_limit_exceeded", "", Outcome.LIMITED),
    Reason.TOO_MANY_ERRORS: Wire(429, "rate_limit_error", "too_many_errors", "", Outcome.LIMITED),
    Reason.NEVER_FITS: _bad_request("exceeds_limit", "This call costs more than the budget allows at any time."),
    Reason.OVERLOADED: _unavailable("overloaded", "The gateway has more calls than it can check; try again shortly."),
    Reason.STORE_AWAY: _unavailable("store_unavailable", _STORE),
    Reason.STORE_TIMEOUT: _unavailable("store_timeout", _STORE),
    Reason.STORE_LATE: _unavailable("store_timeout", _STORE),
    Reason.RECORDS_CHANGING: _unavailable(
        "records_changing", "The key or its publication is being changed; try again."
    ),
    Reason.CROSS_CELL: _unavailable(
        "cross_cell", "The key and the model are counted apart; the operator must give this tenant a key anew."
    ),
    Reason.STATE_UNREADABLE: _unavailable("state_unreadable", "A stored record of this call cannot be read."),
    Reason.NOT_GRPC: _bad_request(
        "grpc_required",
        "This model is called by gRPC over HTTP/2 ('content-type: application/grpc'), not by HTTP/1.1 nor by gRPC-Web.",
        status=415,
    ),
    Reason.CALL_UNREADABLE: _unavailable("call_unreadable", "The proxy's question could not be read."),
    Reason.FAULT: _unavailable("internal_error", "The gateway failed to decide; nothing was let through."),
}

BAD_CALLS: Final = frozenset(
    reason for reason, wire in WIRE.items() if wire.outcome is Outcome.DENIED and wire is not UNAUTHENTICATED
) - {Reason.NO_PUBLICATION, Reason.KEY_IN_URL, Reason.NEVER_FITS}
"""What is counted as a bad call of a good key: its caller's fault, no limit's. Not what is refused before the key is
looked at; nor a path where nothing is published for this caller, which is not to be told from one of nobody's.
"""
