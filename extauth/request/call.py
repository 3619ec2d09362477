"""One call as the gate sees it, free of protobuf. Pure values; the edge fills them, decide reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """What Envoy told about a request.

    ``publication`` and ``openai_host`` come from the route that matched, never from the path:
    a route names one publication, or the table of models its host serves by the body's ``model``.
    """

    api_key: str  # X-API-Key, "" when absent; Envoy joins a header sent twice by commas, which no key contains
    authorization: str  # the Authorization header, "" when absent
    publication: str  # uid named by the route, "" when it names none
    openai_host: str  # host whose model table decides, "" when the route names a publication
    method: str
    content_type: str  # the Content-Type header in lower case, "" when absent
    body_model: str | None  # `model` of a JSON body: None when no body was parsed or it has none
    body_parsed: bool  # whether a JSON body reached us
    body_unread: bool = False  # the route has no body read: what the call asks for is not known
    body_bytes: int = 0  # of the whole body
    max_tokens: int | None = None  # the largest that the body asks for; None: it names no bound
    choices: int = 1  # `n` of the body
    count_fault: str = ""  # the field of the body whose count cannot be meant, "" when there is none
    content_encoding: str = ""  # the Content-Encoding header in lower case, "" when absent
    address: str = ""  # of the caller, as Envoy trusts it; "" when it was not told
    path: str = ""  # as the route saw it, without the query; says what is asked of a publication, never of which
    request_id: str = ""  # Envoy's own, which its access log and the answer carry too; "" when it was not told
