"""One call as the gate sees it, free of protobuf. Pure values; the edge fills them, decide reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """What Envoy told about a request.

    ``publication`` and ``openai_host`` come from the route that matched, never from the path:
    a route names one publication, or the table of models its host serves by the body's ``model``.
    """

    api_keys: tuple[str, ...]  # values of X-API-Key as sent, trimmed; two values are refused
    authorization: str  # the Authorization header, "" when absent
    publication: str  # uid named by the route, "" when it names none
    openai_host: str  # host whose model table decides, "" when the route names a publication
    method: str
    path: str
    body_model: str | None  # `model` of a JSON body: None when no body was parsed or it has none
    body_parsed: bool  # whether a JSON body reached us
    source: str  # the caller's address
    request_id: str
