"""What the API takes and gives of a model's servers."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from admin.http.problems import Rule
from admin.schemas.fields import Input, Output, ServerUrl

MAX_SERVERS: Final = 16
MAX_WEIGHT: Final = 1_000


class ServerInput(Input):
    """One of the servers of a model."""

    url: ServerUrl
    """Origin of the server: scheme, host and port, no path."""
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] = 1
    """Its share of the calls is its weight in the sum of all; 1 unless given."""


def _each_once(servers: tuple[ServerInput, ...]) -> tuple[ServerInput, ...]:
    if not servers:
        raise PydanticCustomError(Rule.LENGTH.value, "must name a server at least")
    if any(count > 1 for count in Counter(one.url for one in servers).values()):
        raise PydanticCustomError(Rule.FORMAT.value, "must name each server once")
    return servers


Servers = Annotated[
    tuple[ServerInput, ...],
    Field(max_length=MAX_SERVERS, json_schema_extra={"minItems": 1}),
    AfterValidator(_each_once),
]


class ModelChange(Input):
    """Body that changes a model, published or not: what is absent is kept."""

    url: ServerUrl = ""
    """Its one server from now on."""
    servers: Servers = ()
    """Its servers from now on, the first of which is asked about the model; instead of url."""


class ModelServer(Output):
    """One of the servers of a model."""

    url: str
    weight: int
