"""What the API takes and gives of a model's servers, and of what they want with each call."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from admin.http.problems import Rule
from admin.schemas.fields import Input, ModelText, Output, ServerUrl

MAX_SERVERS: Final = 16
MAX_WEIGHT: Final = 1_000


MAX_HEADER: Final = 64
MAX_VALUE: Final = 8_192  # characters; the longest tokens there are have some 4,000
HEADER_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?$"
SECRET_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"  # noqa: S105  a name's form  # nosec B105
OURS: Final = frozenset(
    {
        *(
            "host",
            "content-length",
            "content-type",
            "content-encoding",
            "transfer-encoding",
            "connection",
            "keep-alive",
        ),
        *(
            "te",
            "trailer",
            "upgrade",
            "expect",
            "accept-encoding",
            "forwarded",
            "x-request-id",
            "x-tenant-id",
            "x-key-id",
        ),
        *("x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"),
        *("cookie", "origin"),
    }
)
"""Headers that say what a call is, which Envoy or the gate writes."""
OUR_PREFIXES: Final = ("x-tollkeeper-", "x-envoy-", "x-forwarded-", "proxy-", "sec-")

_HEADER: Final = re.compile(HEADER_PATTERN)
_SECRET: Final = re.compile(SECRET_PATTERN)
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")  # visible ASCII, spaces within
_NO_VALUE: Final = SecretStr("")


def _header(name: str) -> str:
    lower = name.lower()
    if not _HEADER.fullmatch(name):
        raise _broken(Rule.FORMAT, f"must be 1 to {MAX_HEADER} letters, digits and - , as in authorization or api-key")
    if lower in OURS or lower.startswith(OUR_PREFIXES):
        raise _broken(Rule.RESERVED, "is written by the gateway itself")
    return lower


def _value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not 1 <= len(text) <= MAX_VALUE:
        raise _broken(Rule.LENGTH, f"must have 1 to {MAX_VALUE} characters")
    if not _VALUE.fullmatch(text):
        raise _broken(Rule.FORMAT, "must be printable ASCII, without space at an end and without line breaks")
    return value


def _secret(name: str) -> str:
    if not _SECRET.fullmatch(name):
        raise _broken(Rule.FORMAT, "must be the name of a Secret: a-z, 0-9, - and . , these not at an end")
    return name


def _broken(rule: Rule, message: str) -> PydanticCustomError:
    return PydanticCustomError(rule.value, "{message}", {"message": message})


HeaderName = Annotated[
    str,
    AfterValidator(_header),
    WithJsonSchema({"type": "string", "pattern": HEADER_PATTERN, "examples": ["authorization"]}),
]
HeaderValue = Annotated[
    SecretStr,
    AfterValidator(_value),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "writeOnly": True,
            "minLength": 1,
            "maxLength": MAX_VALUE,
            "examples": ["Bearer sk-example"],
        }
    ),
]
SecretName = Annotated[
    str,
    AfterValidator(_secret),
    WithJsonSchema({"type": "string", "pattern": SECRET_PATTERN, "examples": ["llm-credential"]}),
]


class ServerInput(Input):
    """One of the servers of a model."""

    url: ServerUrl
    """Origin of the server: scheme, host and port, no path."""
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = 1
    """Its share of the calls is its weight in the sum of all; 1 unless given."""


def _each_once(servers: tuple[ServerInput, ...]) -> tuple[ServerInput, ...]:
    if not servers:
        raise _broken(Rule.LENGTH, "must name a server at least")
    if any(count > 1 for count in Counter(one.url for one in servers).values()):
        raise _broken(Rule.FORMAT, "must name each server once")
    return servers


Servers = Annotated[
    tuple[ServerInput, ...],
    Field(max_length=MAX_SERVERS, json_schema_extra={"minItems": 1}),
    AfterValidator(_each_once),
]


class UpstreamAuthInput(Input):
    """A header that a model's servers want with each call. Either its value or the Secret that holds it."""

    header: HeaderName = "authorization"
    """authorization unless given."""
    value: HeaderValue = _NO_VALUE
    """All of the header's value (Bearer sk-…); never shown again."""
    secret: SecretName = ""
    """On Envoy Gateway: the Secret beside the Gateway that holds it under the key credential."""


class ModelChange(Input):
    """Body that changes a model, published or not: what is absent is kept."""

    url: ServerUrl = ""
    """Its one server from now on."""
    servers: Servers = ()
    """Its servers from now on, the first of which is asked about the model; instead of url."""
    upstream_auth: UpstreamAuthInput | None = None
    """What its servers want with each call; null: nothing. A server that is new gets it only where it is sent again."""
    model_id: ModelText = ""
    """What its servers call it from now on, and callers may; its own name: the same."""


class UpstreamAuth(Output):
    """A header that a model's servers get with each call; never its value."""

    header: str
    set: Literal[True] = True
    """It has a value."""
    secret: str | None
    """The Secret that holds it; null: it was sent."""


class ModelServer(Output):
    """One of the servers of a model."""

    url: str
    weight: int
