"""What is wrong with an openai call, by where it goes and what its body says. Pure; knows no key and no budget."""

from __future__ import annotations

import re
from typing import Final

from catalog.records import PublicationRecord
from extauth.reasons import Reason
from extauth.request.body import UNREAD, Body, BodyFault, Unread
from extauth.request.call import Call
from extauth.request.endpoints import Endpoint, Kind, endpoint_of
from extauth.request.form import is_form
from extauth.request.packed import ENCODINGS, IDENTITY, is_readable
from extauth.request.permitted import endpoint_fault, field_fault, needs_body

JSON: Final = "application/json"
_OBJECT: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]*\{")


def openai_fault(call: Call, record: PublicationRecord | None, *, is_alone: bool) -> Reason | BodyFault | Unread | None:
    """Say why a call may not pass, whoever makes it; ``None`` where nothing is wrong, ``UNREAD`` to have its body read.

    ``record``: the publication that it is for, ``None`` where the body names none that its caller may see.
    ``is_alone``: the model's server is one tenant's alone.
    """
    endpoint = endpoint_of(call.path, "" if record is None or call.openai_host else record.path)
    readable = is_readable(call.content_encoding, unpacks=call.unpacks)
    may_be_opened = endpoint.is_plain and endpoint.kind is not Kind.MODELS and readable
    if record is None and call.is_unread and may_be_opened:
        return UNREAD  # it may name a publication that has opened the endpoint
    fault = endpoint_fault(call.method, endpoint, record, is_alone=is_alone, names_model=bool(call.model))
    if fault is None:
        return _body_fault(call, endpoint, record, is_alone=is_alone)
    return fault


def asks_stored(call: Call, record: PublicationRecord) -> bool:
    """Whether a call is for what an earlier one made, by its path or a field: then it matters who calls the server."""
    return names_stored(call) or endpoint_of(call.path, record.path).is_owned


def names_stored(call: Call) -> bool:
    """Whether a field of its body names what an earlier call made."""
    return isinstance(call.body, Body) and bool(call.body.ids)


def _body_fault(
    call: Call, endpoint: Endpoint, record: PublicationRecord | None, *, is_alone: bool
) -> Reason | BodyFault | Unread | None:
    """A body that decides is a JSON object, or the form that its endpoint takes."""
    body = call.body
    if isinstance(body, BodyFault):
        return body
    is_needed = bool(call.openai_host) or needs_body(endpoint)
    if (is_needed or call.is_unread) and not _reads(call, is_needed=is_needed):
        return _encoded(call)
    if is_needed:
        if call.is_unread:
            return UNREAD
        if body is None and (call.openai_host or not _is_form(call, endpoint)):
            return _unparsed(call, endpoint)
    if body is None:
        return UNREAD if call.is_unread and _may_be_json(call) else None
    fault = _model_fault(call, body, record, endpoint)
    return fault or (field_fault(body, record, is_alone=is_alone) if record else None)


def _reads(call: Call, *, is_needed: bool) -> bool:
    """Whether the body's encoding lets it be read; what need not be JSON and does not say so is not unpacked to see."""
    if call.content_encoding in IDENTITY:
        return True
    is_json = is_needed or call.content_type.lower().startswith(JSON)
    return is_json and is_readable(call.content_encoding, unpacks=call.unpacks)


def _encoded(call: Call) -> BodyFault:
    """Refuse an encoding, in words that quote it and say which would do."""
    good = sorted(ENCODINGS) if call.unpacks else []
    ways = "".join(f", or as {encoding}" for encoding in good)
    message = f"The body must be sent without 'Content-Encoding'{ways}, not as {call.content_encoding[:40]!r}."
    return BodyFault(Reason.BODY_ENCODED, message, accepts=", ".join(good) or "identity")


def _may_be_json(call: Call) -> bool:
    """Whether a server may read a body as JSON: many do so of an object, whatever its Content-Type says."""
    return call.content_type.lower().startswith(JSON) or _OBJECT.match(call.raw) is not None


def _is_form(call: Call, endpoint: Endpoint) -> bool:
    return endpoint.kind is Kind.FORM and is_form(call.content_type)


_FORM_WITHOUT: Final = BodyFault(
    Reason.MODEL_MISSING, "The form must name a model by its field 'model', or be sent to the model's own URL.", "model"
)


def _model_fault(
    call: Call, body: Body, record: PublicationRecord | None, endpoint: Endpoint
) -> Reason | BodyFault | None:
    """A publication's own path names its model, and a body may name no other; by which of its names is no matter."""
    if call.openai_host and not body.model:
        return _FORM_WITHOUT if _is_form(call, endpoint) else Reason.MODEL_MISSING
    if call.openai_host:
        return None
    is_other = record is not None and body.model and body.model not in record.names
    return Reason.MODEL_NOT_FOUND if is_other else None


def _unparsed(call: Call, endpoint: Endpoint) -> Reason:
    """Why a body could not be read."""
    if call.content_type.lower().startswith(JSON):
        return Reason.BODY_NOT_JSON
    return Reason.FORM_TYPE if endpoint.kind is Kind.FORM else Reason.BODY_TYPE
