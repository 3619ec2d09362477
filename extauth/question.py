"""Envoy's question, read in two steps: whose call it is, and the rest where that is not enough. Knows protobuf."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from catalog.inference import is_grpc_type
from catalog.keys.keytext import PREFIX
from catalog.keys.probetext import looks_like_probe
from extauth.answers.amended import amended
from extauth.credentials.carriers import CREDENTIAL_HEADERS, KEY_HEADERS, presented
from extauth.credentials.copies import BEFORE_BODY, COOKIE, MARK, copies_in
from extauth.dialects.spoken import VERSION_HEADER
from extauth.grpc.calls import binary_copies, is_grpc_call
from extauth.reasons import Reason
from extauth.request.body import Body, BodyFault
from extauth.request.call import Call, Posted, single_type
from extauth.request.routed import Routed, routed
from extauth.request.told_body import told_body
from protos.core_pb2 import Metadata
from protos.external_auth_pb2 import AttributeContext, CheckRequest

MAX_REQUEST_ID: Final = 64
MAX_TAGS: Final = 4_096
"""Characters of If-None-Match that are looked at."""
MAX_ADDRESS: Final = 64
"""Longer than any address is written; it becomes part of a name in the store, which must be bounded."""


class Question:
    """What Envoy asks about one call (``extauth.request.call.Asking``)."""

    __slots__ = (
        "_attributes",
        "_call",
        "amended",
        "api_key",
        "body",
        "by_path",
        "grpc",
        "key_fault",
        "openai_host",
        "publication",
        "unpacks",
    )

    def __init__(
        self, attributes: AttributeContext, payload: bytes, gateway_namespace: str, key_headers: Sequence[str]
    ) -> None:
        self._attributes = attributes
        self._call: Call | None = None
        self.body: Body | BodyFault | None = None
        """What was read of it (``reading``)."""
        self.amended = b""
        self.api_key, self.key_fault = presented(attributes.request.http.headers.get, key_headers)
        self.publication, self.openai_host, self.unpacks, self.grpc, self.by_path = _routed(
            attributes.route_metadata_context.SerializeToString(), gateway_namespace
        )
        if payload.count(MARK, 0, BEFORE_BODY) > self.api_key.startswith(PREFIX):
            self._take_copies_off((*CREDENTIAL_HEADERS, *key_headers))
        if self.grpc:
            self._hear_grpc()

    def _take_copies_off(self, ending: Sequence[str]) -> None:
        http = self._attributes.request.http
        copies = copies_in(http.headers, (http.path, http.host, http.method), ending)
        if copies.in_url:
            self.key_fault = Reason.KEY_IN_URL
        self.amended = amended(copies.removed, {COOKIE: copies.cookie} if copies.cookie else {})

    @property
    def path(self) -> str:
        """As ``Call.path``."""
        return self._attributes.request.http.path.partition("?")[0]

    @property
    def request_id(self) -> str:
        """As ``Call.request_id``."""
        return self._attributes.request.http.headers.get("x-request-id", "")[:MAX_REQUEST_ID]

    @property
    def names_version(self) -> bool:
        """As ``Call.names_version``."""
        return VERSION_HEADER in self._attributes.request.http.headers

    def _hear_grpc(self) -> None:
        """Read a call at a route of gRPC, where the publisher's probes alone are none."""
        http = self._attributes.request.http
        self.grpc = is_grpc_type(http.headers.get("content-type", ""))
        self.amended += amended(binary_copies(http.headers), {})
        is_good = is_grpc_call(http.method, http.protocol, is_grpc_type=self.grpc)
        if not is_good and self.key_fault is None and not looks_like_probe(self.api_key):
            self.key_fault = Reason.NOT_GRPC

    def read(self) -> Call:
        """Read the whole call, once."""
        if self._call is None:
            self._call = self._whole()
        return self._call

    @property
    def if_none_match(self) -> str:
        """Which answers its caller has already; read by the few that ask for what the gate itself tells."""
        return self._attributes.request.http.headers.get("if-none-match", "")[:MAX_TAGS]

    def posted(self) -> Posted:
        """Read what decides where the body does."""
        http = self._attributes.request.http
        headers, raw = http.headers, http.raw_body
        text = "" if raw else http.body
        content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
        raw = raw or text.encode()
        if "," in content_type:
            content_type = self._single_type(content_type, is_told=bool(raw))
        path = http.path.partition("?")[0]
        encoding = encoding and encoding.lower()
        return Posted(http.method, path, content_type, encoding, raw, bool(text), self.unpacks)

    def _single_type(self, content_type: str, *, is_told: bool) -> str:
        """Make one of equal ones, for the model's server too where a body was handed over that is read by it."""
        single = single_type(content_type)
        change = amended((), {"content-type": single})
        if is_told and single != content_type and change not in self.amended:  # it may be asked for again
            self.amended += change
        return single

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
            key_fault=self.key_fault,
            publication=self.publication,
            openai_host=self.openai_host,
            method=posted.method,
            content_type=posted.content_type,
            body=body,
            raw=raw,
            raw_is_text=posted.raw_is_text,
            content_encoding=posted.content_encoding,
            unpacks=self.unpacks,
            grpc=self.grpc,
            address=http.headers.get("x-envoy-external-address", "")[:MAX_ADDRESS],
            path=posted.path,
            query=http.path.partition("?")[2],
            by_path=self.by_path,
            names_version=self.names_version,
            request_id=self.request_id,
        )


MOST_ROUTES: Final = 4_096
"""Routes whose metadata is kept read, by its bytes: half a kilobyte each, and every call names one of few."""


@functools.lru_cache(maxsize=MOST_ROUTES)
def _routed(metadata: bytes, gateway_namespace: str) -> Routed:
    return routed(Metadata.FromString(metadata).filter_metadata, gateway_namespace)


def read_question(
    payload: bytes, gateway_namespace: str = "", key_headers: Sequence[str] = KEY_HEADERS
) -> Question | None:
    """Read Envoy's question; ``None`` where it is not one.

    ``gateway_namespace``: of the HTTPRoutes of Envoy Gateway whose rules' names are believed.
    ``key_headers``: by which a key may come, in this order and in lower case.
    """
    try:
        return Question(CheckRequest.FromString(payload).attributes, payload, gateway_namespace, key_headers)
    except DecodeError:
        return None
