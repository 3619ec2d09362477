"""One call as the gate sees it, free of protobuf. Pure values; the edge fills them, decide reads them."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import structs

from extauth.reasons import Reason
from extauth.request.body import Body, BodyFault


class Posted(NamedTuple):
    """What decides about a call whose body decides, beside its key and its route; as the fields of ``Call``."""

    method: str
    path: str
    content_type: str
    content_encoding: str
    raw: bytes
    raw_is_text: bool
    unpacks: bool


class Asking(Protocol):
    """A call of which no more was read than whose it is; most need no more."""

    @property
    def api_key(self) -> str:
        """As ``Call.api_key``."""
        ...

    @property
    def key_fault(self) -> Reason | None:
        """As ``Call.key_fault``."""
        ...

    @property
    def amended(self) -> bytes:
        """As ``Call.amended``."""
        ...

    @property
    def publication(self) -> str:
        """As ``Call.publication``."""
        ...

    @property
    def openai_host(self) -> str:
        """As ``Call.openai_host``."""
        ...

    @property
    def grpc(self) -> bool:
        """As ``Call.grpc``."""
        ...

    @property
    def body(self) -> Body | BodyFault | None:
        """As ``Call.body``."""
        ...

    @property
    def if_none_match(self) -> str:
        """As ``Call.if_none_match``."""
        ...

    @property
    def by_path(self) -> bool:
        """As ``Call.by_path``."""
        ...

    @property
    def path(self) -> str:
        """As ``Call.path``."""
        ...

    @property
    def request_id(self) -> str:
        """As ``Call.request_id``."""
        ...

    @property
    def names_version(self) -> bool:
        """As ``Call.names_version``."""
        ...

    def posted(self) -> Posted:
        """Read what decides where the body does."""
        ...

    def reading(self, body: Body | BodyFault) -> Asking:
        """Return the call with its body read."""
        ...

    def read(self) -> Call:
        """Read the whole call."""
        ...


class Call(msgspec.Struct, frozen=True, gc=False):
    """What Envoy told about a request.

    ``publication`` and ``openai_host`` come from the route that matched, never from the path:
    a route names one publication, or the table of models its host serves by the body's ``model``.
    """

    api_key: str  # the text that it presents as its key (``credentials.carriers``), "" where it presents none
    key_fault: Reason | None  # why that counts for nothing, whatever it is
    publication: str  # uid named by the route, "" when it names none
    openai_host: str  # host whose model table decides, "" when the route names a publication
    method: str
    content_type: str = ""  # the Content-Type header as it was sent, "" when absent
    body: Body | BodyFault | None = None  # what the body says, or why it cannot be meant; None: none, or not read yet
    raw: bytes = b""  # the body, until it was read; b"": the proxy handed none over
    raw_is_text: bool = False  # the proxy handed it over as text: what is not UTF-8 in it has been replaced
    content_encoding: str = ""  # the Content-Encoding header in lower case, "" when absent
    address: str = ""  # of the caller, as Envoy trusts it; "" when it was not told
    path: str = ""  # as the route saw it, without the query; says what is asked of a publication, never of which
    query: str = ""  # what follows the path
    names_version: bool = False  # of Anthropic's API, as its clients do (``dialects.spoken``)
    request_id: str = ""  # Envoy's own, which its access log and the answer carry too; "" when it was not told
    unpacks: bool = False  # the proxy unpacks the body if the call passes
    if_none_match: str = ""  # the If-None-Match header, "" when absent
    grpc: bool = False  # it is answered in gRPC's form
    amended: bytes = b""  # what Envoy is to change of its headers if it passes (``answers.amended``)
    by_path: bool = False  # its path names the model, in KServe's words (``kserve.paths``)

    def read(self) -> Call:
        """Return the call itself: it was read."""
        return self

    def posted(self) -> Posted:
        """Say what decides where the body does."""
        encoding, is_text = self.content_encoding, self.raw_is_text
        return Posted(self.method, self.path, self.content_type, encoding, self.raw, is_text, self.unpacks)

    @property
    def has_body(self) -> bool:
        """Whether the proxy handed a body over, or told of one."""
        return bool(self.raw) or self.body is not None

    @property
    def is_unread(self) -> bool:
        """Whether a body waits to be read, which it is only for a caller who may pass so far."""
        return self.body is None and bool(self.raw)

    def reading(self, body: Body | BodyFault) -> Call:
        """Return the same call with its body read, and the body's bytes let go."""
        return structs.replace(self, body=body, raw=b"")

    @property
    def model(self) -> str:
        """The body's ``model``; "" where the body names none, or was not read."""
        return self.body.model if isinstance(self.body, Body) else ""


MOST_TYPES: Final = 8
"""Of one call; a client that says it twice says it by two of its layers."""


def single_type(content_type: str) -> str:
    """A Content-Type that came several times with equal values, which Envoy has joined by commas, as one.

    Of more than ``MOST_TYPES`` nothing is made: it stays as it came.
    """
    if content_type.count(",") >= MOST_TYPES:
        return content_type
    first, *others = [part.strip(" \t") for part in content_type.split(",")]
    return first if all(other == first for other in others) else content_type
