"""The id of a call, which answers in the words of Anthropic's API say, as bytes. Pure."""

from __future__ import annotations

import uuid
from typing import Final

from extauth.answers.shown import OK_RESPONSE
from extauth.answers.wire import Slot, field
from extauth.dialects.anthropic import REQUEST_ID

_TO_CALLER: Final = 6
"""OkHttpResponse.response_headers_to_add."""
_IF_ABSENT: Final = b"\x18\x01"
"""HeaderValueOption.append_action = ADD_IF_ABSENT: a server that says an id of its own is asked by that."""


ANYBODYS: Final = str(uuid.uuid4())
"""Stands in a refusal of many calls where each is named; nobody can guess it. Envoy's ids have its form."""


def named_in(answer: bytes, request_id: str) -> bytes:
    """The refusal with a call's id; b"" where that has another length, which others of its numbers follow from."""
    is_alike = len(request_id) == len(ANYBODYS) and request_id.isascii()
    return answer.replace(ANYBODYS.encode(), request_id.encode()) if is_alike else b""


def requested(request_id: str) -> bytes:
    """What is added to a server's answer that names no call itself; b"" where there is no id."""
    return _NAMED.of(request_id.encode()) if request_id else b""


_NAMED: Final = Slot(
    lambda value: field(
        OK_RESPONSE, field(_TO_CALLER, field(1, field(1, REQUEST_ID.encode()) + field(2, value)) + _IF_ABSENT)
    ),
    _IF_ABSENT,
)
