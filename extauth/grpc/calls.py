"""What makes a call one of gRPC, and where a key hides in its metadata. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping
from typing import Final

from catalog.keys.keytext import holds_form

BINARY: Final = "-bin"
"""How the names of metadata end whose values are bytes, which are sent in base64."""
_HTTP_2: Final = "HTTP/2"


def is_grpc_call(method: str, protocol: str, *, is_grpc_type: bool) -> bool:
    """Whether a call can be answered by gRPC's rules. By HTTP/1.1 its caller would never hear the status."""
    return is_grpc_type and method == "POST" and protocol == _HTTP_2


def binary_copies(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The binary metadata that hold a text of a key's form; in those of text it is found as in any header."""
    return tuple(
        name
        for name, value in headers.items()
        if name.endswith(BINARY) and any(holds_form(text) for text in _texts(value))
    )


def _texts(value: str) -> Iterator[str]:
    """What the values say; several of a name are joined by commas, and padding may be left out."""
    for part in value.split(","):
        text = part.strip(" ")
        try:
            yield binascii.a2b_base64(text + "=" * (-len(text) % 4)).decode("latin-1")
        except ValueError:
            continue
