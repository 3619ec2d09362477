"""A refusal, or an answer of the gate's own, as Envoy is told it: a CheckResponse in bytes. Pure."""

from __future__ import annotations

import functools
from typing import Final

from extauth.answers.answers import Denial
from extauth.answers.shared import entry
from extauth.answers.wire import Slot, field, header_slot, number_field
from extauth.reasons import Reason

PERMISSION_DENIED: Final = 7
"""google.rpc.Code; any code but 0 makes Envoy send the denied response."""
_DENIED_RESPONSE: Final = 2
"""CheckResponse.denied_response."""


def denied_answer(answer: Denial, reason: Reason) -> bytes:
    """What Envoy is to send in the model's place; ``reason`` stands in the metadata too, for its access log."""
    headers = b"".join([_header(name).of(value.encode()) for name, value in answer.headers])
    status = field(1, number_field(1, answer.status))
    before, after = _around(reason)
    return before + field(_DENIED_RESPONSE, status + headers + field(3, answer.body.encode())) + after


@functools.lru_cache(maxsize=64)  # our own names
def _header(name: str) -> Slot:
    return header_slot(2, name.encode())


@functools.cache
def _around(reason: Reason) -> tuple[bytes, bytes]:
    """CheckResponse.status and .dynamic_metadata."""
    told = reason.value.encode()
    return field(1, number_field(1, PERMISSION_DENIED) + field(2, told)), field(4, entry("reason", reason.value))
