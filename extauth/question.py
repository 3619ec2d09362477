"""Envoy's question, read in two steps: whose call it is, and the rest where that is not enough. Knows protobuf."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from extauth.request.call import Call
from extauth.request.routed import routed
from extauth.request.told_body import told_body
from protos.external_auth_pb2 import AttributeContext, CheckRequest

MAX_REQUEST_ID: Final = 64
MAX_ADDRESS: Final = 64
"""Longer than any address is written; it becomes part of a name in the store, which must be bounded."""


class Question:
    """What Envoy asks about one call (``extauth.request.call.Asking``)."""

    __slots__ = ("_attributes", "_call", "api_key", "authorization", "openai_host", "publication")

    def __init__(self, attributes: AttributeContext, gateway_namespace: str) -> None:
        headers = attributes.request.http.headers
        self._attributes = attributes
        self._call: Call | None = None
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

    def _whole(self) -> Call:
        http = self._attributes.request.http
        headers = http.headers
        raw, text = http.raw_body, http.body
        return Call(
            api_key=self.api_key,
            authorization=self.authorization,
            publication=self.publication,
            openai_host=self.openai_host,
            method=http.method,
            content_type=headers.get("content-type", ""),
            body=None if raw or text else told_body(self._attributes.metadata_context.filter_metadata, http.size),
            raw=raw or text.encode(),
            raw_is_text=bool(text),
            content_encoding=headers.get("content-encoding", "").lower(),
            address=headers.get("x-envoy-external-address", "")[:MAX_ADDRESS],
            path=http.path.partition("?")[0],
            request_id=headers.get("x-request-id", "")[:MAX_REQUEST_ID],
        )


def read_question(payload: bytes, gateway_namespace: str = "") -> Question | None:
    """Read Envoy's question; ``None`` where it is not one.

    ``gateway_namespace``: of the HTTPRoutes of Envoy Gateway whose rules' names are believed.
    """
    try:
        return Question(CheckRequest.FromString(payload).attributes, gateway_namespace)
    except DecodeError:
        return None
