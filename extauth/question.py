"""Envoy's question, read in two steps: whose call it is, and the rest where that is not enough. Knows protobuf."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from extauth.request.body import Body, BodyFault
from extauth.request.call import Call, Posted
from extauth.request.routed import routed
from extauth.request.told_body import told_body
from protos.external_auth_pb2 import AttributeContext, CheckRequest

MAX_REQUEST_ID: Final = 64
MAX_ADDRESS: Final = 64
"""Longer than any address is written; it becomes part of a name in the store, which must be bounded."""


class Question:
    """What Envoy asks about one call (``extauth.request.call.Asking``)."""

    __slots__ = ("_attributes", "_call", "api_key", "authorization", "body", "openai_host", "publication")

    def __init__(self, attributes: AttributeContext, gateway_namespace: str) -> None:
        headers = attributes.request.http.headers
        self._attributes = attributes
        self._call: Call | None = None
        self.body: Body | BodyFault | None = None
        """What was read of it (``reading``)."""
        self.api_key = headers.get("x-api-key", "").strip(" \t")
        self.authorization = headers.get("authorization", "")
        self.publication, self.openai_host = routed(
            attributes.route_metadata_context.filter_metadata, gateway_namespace
        )

    def read(self) -> Call:
        """Read the whole call, once."""
        if self._call is None:
            self._call = self._whole()
        return self._call

    def posted(self) -> Posted:
        """Read what decides where the body does."""
        http = self._attributes.request.http
        headers, raw = http.headers, http.raw_body
        text = "" if raw else http.body
        content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
        path = http.path.partition("?")[0]
        return Posted(http.method, path, content_type, encoding and encoding.lower(), raw or text.encode(), bool(text))

    def reading(self, body: Body | BodyFault) -> Question:
        """Return the same question with its body read, which nobody then reads again."""
        self.body, self._call = body, None
        return self

    def _whole(self) -> Call:
        http = self._attributes.request.http
        posted, body = self.posted(), self.body
        raw = posted.raw if body is None else b""
        if body is None and not raw:
            body = told_body(self._attributes.metadata_context.filter_metadata, http.size)
        return Call(
            api_key=self.api_key,
            authorization=self.authorization,
            publication=self.publication,
            openai_host=self.openai_host,
            method=posted.method,
            content_type=posted.content_type,
            body=body,
            raw=raw,
            raw_is_text=posted.raw_is_text,
            content_encoding=posted.content_encoding,
            address=http.headers.get("x-envoy-external-address", "")[:MAX_ADDRESS],
            path=posted.path,
            request_id=http.headers.get("x-request-id", "")[:MAX_REQUEST_ID],
        )


def read_question(payload: bytes, gateway_namespace: str = "") -> Question | None:
    """Read Envoy's question; ``None`` where it is not one.

    ``gateway_namespace``: of the HTTPRoutes of Envoy Gateway whose rules' names are believed.
    """
    try:
        return Question(CheckRequest.FromString(payload).attributes, gateway_namespace)
    except DecodeError:
        return None
