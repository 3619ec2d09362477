"""What Envoy is to change of a call that it lets pass, as bytes that are put behind its answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from extauth.answers.shown import OK_RESPONSE
from extauth.answers.wire import field, header

_TO_UPSTREAM: Final = 2
"""OkHttpResponse.headers."""
_REMOVED: Final = 5
"""OkHttpResponse.headers_to_remove."""


def amended(removed: Iterable[str], overwritten: Mapping[str, str]) -> bytes:
    """Have headers removed, and others replaced, by name; b"" where there is nothing to do."""
    said = b"".join(field(_REMOVED, name.encode()) for name in removed)
    said += b"".join(header(_TO_UPSTREAM, name.encode(), value.encode()) for name, value in overwritten.items())
    return field(OK_RESPONSE, said) if said else b""
