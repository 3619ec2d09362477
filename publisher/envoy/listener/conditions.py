"""The conditions under which Envoy gives an answer of its own one form or another. Pure."""

from __future__ import annotations

from typing import Final

from publisher.envoy.bodies import CHECK_FILTER
from publisher.envoy.files import Json

CHECKED: Final[Json] = {"response_flag_filter": {"flags": ["UAEX"]}}
"""Check said so, or could not be asked."""
NO_ROUTE: Final[Json] = {"response_flag_filter": {"flags": ["NR"]}}
AWAY: Final[Json] = {"response_flag_filter": {"flags": ["UF", "UH", "UC", "UO", "UR", "UPE", "NC"]}}
"""The model's server gave no answer, or there is none."""


def both(*filters: Json) -> Json:
    """All of these."""
    return {"and_filter": {"filters": list(filters)}}


def either(*filters: Json) -> Json:
    """Any of these."""
    return {"or_filter": {"filters": list(filters)}}


def has(header: str) -> Json:
    """A request with this header."""
    return _header(header, {"present_match": True})


def header_is(name: str, value: str) -> Json:
    """A request whose header is this."""
    return _header(name, {"string_match": {"exact": value}})


def header_matches(name: str, regex: str, *, invert: bool = False) -> Json:
    """A request whose header is all of this; ``invert``: is not."""
    return _header(
        name, {"string_match": {"safe_regex": {"regex": regex}}} | ({"invert_match": True} if invert else {})
    )


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name} | match}}


def checks_reason(reason: str | None) -> Json:
    """Check's own word for it; ``None``: it said none."""
    value = {"string_match": {"exact": reason or ""}}
    matcher = {"filter": CHECK_FILTER, "path": [{"key": "reason"}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": reason is None}}


def status_is(status: int) -> Json:
    """The HTTP status that Envoy has in mind; of gRPC, before it is turned into one of gRPC's."""
    value = {"default_value": status, "runtime_key": "tollkeeper.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
