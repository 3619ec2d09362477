"""How Envoy hands a call's body to the gate with Check, which routes do, and by which way the large ones go. Pure.

Envoy holds the body of an openai call until Check has answered and reads nothing of it; on all other routes Check is
asked at the end of the headers. A body that is large, or does not tell its length, goes to the gate by connections of
its own and has longer to be checked: it never stands in front of small Checks, nor hurries because of them.
"""

from __future__ import annotations

from typing import Any, Final

from extauth.request.packed import ENCODINGS

Json = dict[str, Any]

CHECK_FILTER: Final = "envoy.filters.http.ext_authz"
GATE_LARGE: Final = "tollkeeper-gate-large"
"""The gate's workers again, for the Checks of large bodies."""
LARGE_BYTES: Final = 256 * 1024
"""From here on a body is large (``runtime.grpc.front``: what is answered alone)."""
LARGE_CHECK_S: Final = 5
"""Longest wait for the Check of a large body, in seconds: eight of 4 MiB may have to wait for each other."""

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions."
_TYPE: Final = f"{_EXTENSIONS}filters.http.ext_authz.v3.ExtAuthzPerRoute"
UNPACKING: Final = tuple(f"envoy.filters.http.decompressor/{encoding}" for encoding in sorted(ENCODINGS))
"""The filters that do, off but for those routes."""
_BODY_METHODS: Final = "POST|PUT|PATCH"


def with_body(max_bytes: int) -> Json:
    """What Check is told of a body: all of it, as bytes. Above ``max_bytes`` Envoy answers 413 and does not ask."""
    return {"max_request_bytes": max_bytes, "pack_as_bytes": True, "allow_partial_message": False}


def without_body() -> Json:
    """What a route says, by filter, whose calls' bodies are no matter of the gate's."""
    return _on_route({"disable_request_body_buffering": True})


def large_way() -> Json:
    """What a route says, by filter, whose calls' bodies are large or may be."""
    service = {"envoy_grpc": {"cluster_name": GATE_LARGE}, "timeout": f"{LARGE_CHECK_S}s"}
    return _on_route({"grpc_service": service})


def large_calls() -> list[Json]:
    """How a route knows them by their headers: they have a body, and not a length below ``LARGE_BYTES``."""
    small = {"start": 0, "end": LARGE_BYTES}
    length = {"name": "content-length", "range_match": small, "invert_match": True}
    regex = {"safe_regex": {"regex": _BODY_METHODS}}
    return [{"name": ":method", "string_match": regex}, length | {"treat_missing_header_as_empty": True}]


def packed_calls() -> list[Json]:
    """How a route knows the calls by their headers whose bodies are packed, in whatever way: the gate says which do."""
    regex = {"safe_regex": {"regex": _BODY_METHODS}}
    return [{"name": ":method", "string_match": regex}, {"name": "content-encoding", "present_match": True}]


def unpacking_filters() -> list[Json]:
    """Unpack bodies that Check has let pass; to stand behind it: a frame of 20 bytes can take 128 MiB of Envoy.

    The gate has read what comes out, and let nothing pass that these would cut off. Answers are left alone.
    """
    return [_unpacking(name) for name in UNPACKING]


def _unpacking(name: str) -> Json:
    encoding = name.rpartition("/")[2]
    never = {"default_value": False, "runtime_key": "tollkeeper.unused"}
    library = {"@type": f"{_EXTENSIONS}compression.{encoding}.decompressor.v3.{encoding.capitalize()}"}
    config = {
        "@type": f"{_EXTENSIONS}filters.http.decompressor.v3.Decompressor",
        "decompressor_library": {"name": encoding, "typed_config": library | {"chunk_size": UNPACKED_AT_ONCE}},
        "request_direction_config": {
            "common_config": {"ignore_no_transform_header": True},
            "advertise_accept_encoding": False,
        },
        "response_direction_config": {"common_config": {"enabled": never}},
    }
    return {"name": name, "disabled": True, "typed_config": config}


UNPACKED_AT_ONCE: Final = 64 * 1024
"""Bytes that Envoy unpacks into at once: up to so many it bounds no ratio."""


def _on_route(settings: Json) -> Json:
    return {CHECK_FILTER: {"@type": _TYPE, "check_settings": settings}}
