"""Which endpoints an openai publication lets callers reach, and which fields of a body it lets them use. Pure.

A server's ``/v1`` is more than a model: adapters are loaded there, files listed, other callers' answers fetched. So a
publication passes a list of endpoints (``extauth.request.endpoints.LISTED``) by POST, and what else it names itself.
What an earlier call made belongs to the tenant that made it. Who that was nobody writes down, so it can be asked for
only where one tenant alone calls the server.
"""

from __future__ import annotations

import json
from typing import Final

from catalog.records import PublicationRecord
from extauth.reasons import Reason
from extauth.request.body import Body, BodyFault
from extauth.request.endpoints import Endpoint, Kind

MAX_SHOWN: Final = 100
"""Longest name of an endpoint that is told to its caller, in characters."""

_OPENED_BY: Final = "Whoever publishes the model can open it by 'allowedEndpoints'."
_DOUBLED: Final = ("v1",)
_BASE_URL: Final = "Clients that add '/v1' by themselves, as Anthropic's, take the host's URL without a path as base."
CALLED_BY: Final = "POST"
"""The one method of what is listed: ``GET chat/completions`` would list what others had stored."""
_ALONE: Final = "only where the model's server is one tenant's alone, by keys of its own, and here it is not"


def endpoint_fault(
    method: str, endpoint: Endpoint, record: PublicationRecord | None, *, is_alone: bool, names_model: bool
) -> BodyFault | None:
    """Say why an endpoint may not be called so; ``None`` where it may.

    ``record``: the publication, ``None`` where the body has yet to name it or names none that the caller may see.
    ``names_model``: the body names one.
    ``is_alone``: its server is one tenant's alone.
    """
    if endpoint.kind is Kind.MODELS:
        return _refused(f"The gateway itself answers {shown(endpoint)}, to GET of its plain path alone.")
    if needs_body(endpoint) and method != CALLED_BY:
        return BodyFault(Reason.METHOD_NOT_ALLOWED, f"The endpoint {shown(endpoint)} takes {CALLED_BY} only.")
    if record is None and _may_lie_elsewhere(endpoint):
        return None if names_model else _names_none(endpoint)  # what is wrong is then that there is no such model
    if not (endpoint.is_listed or endpoint.is_within(() if record is None else record.allowed_endpoints)):
        advice = _BASE_URL if endpoint.is_within(_DOUBLED) else _OPENED_BY
        return _refused(f"The endpoint {shown(endpoint)} is not open at this model. {advice}")
    if endpoint.is_owned and not is_alone:
        what = f"What lies at {shown(endpoint)} belongs to the tenant that made it"
        return BodyFault(Reason.STORED_NOT_ALLOWED, f"{what}: it is reached {_ALONE}.")
    return None


def field_fault(body: Body, record: PublicationRecord, *, is_alone: bool) -> BodyFault | None:
    """Say which field of a good body may not be used at this publication; ``None`` where all may."""
    if body.background and not record.allow_background:
        rule = "'background' must be false or left out: this model answers while the caller waits"
        return BodyFault(
            Reason.BACKGROUND_NOT_ALLOWED, f"{rule}, unless its publication sets 'allowBackground'.", "background"
        )
    if body.ids and not is_alone:
        field = body.ids[0]
        rule = f"'{field}' must be left out: what it names belongs to the tenant that made it, and is used {_ALONE}"
        return BodyFault(Reason.STORED_NOT_ALLOWED, f"{rule}. Send the whole input instead.", field)
    return None


def needs_body(endpoint: Endpoint) -> bool:
    """Whether a call's body must be read before it may pass: it is held and charged by what it says."""
    return endpoint.is_listed and not endpoint.is_owned


def shown(endpoint: Endpoint) -> str:
    """An endpoint as its caller is told of it, quoted: ``'files'``."""
    name = endpoint.name or "/"
    return "'" + json.dumps(name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "…", ensure_ascii=True)[1:-1] + "'"


def _may_lie_elsewhere(endpoint: Endpoint) -> bool:
    """Whether it depends on the model, which is not known, if the endpoint is open."""
    return endpoint.is_plain and (endpoint.is_owned or not endpoint.is_listed)


def _names_none(endpoint: Endpoint) -> BodyFault:
    message = f"{shown(endpoint)} names no model: ask for it at the model's own URL."
    return BodyFault(Reason.MODEL_MISSING, message, "model")


def _refused(message: str) -> BodyFault:
    return BodyFault(Reason.ENDPOINT_NOT_ALLOWED, message)
