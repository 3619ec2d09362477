"""Where a body says its model: the bytes in whose place another name of the same model may be written. Pure.

Looked for only of calls that may pass, whose body was read as good, and which say what the model's server does not
know.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from extauth.request.form import NoFormError, is_form, place_of_field
from extauth.request.members import UnreadableError, place_of_member

MODEL: Final = "model"
_FIRST: Final = re.compile(rb'(?:\xef\xbb\xbf)?[ \t\n\r]*+\{[ \t\n\r]*+"model"[ \t\n\r]*+:[ \t\n\r]*+("[^"\\]*+")')
"""An object whose first member is a model without an escape, as nearly all clients send it."""


class Place(NamedTuple):
    """Bytes of a body, counted from 0."""

    begin: int
    end: int  # of the byte behind them
    in_json: bool  # a string with its quotation marks; else a form's bare text


def place_of_model(raw: bytes, content_type: str) -> Place | None:
    """Find the value of a body's ``model``, which stands there once at most (``reading``); ``None`` where none does."""
    in_json = not is_form(content_type)
    try:
        found = _in_json(raw) if in_json else place_of_field(raw, content_type, MODEL)
    except (UnreadableError, NoFormError):
        return None
    return Place(*found, in_json=in_json) if found else None


def _in_json(raw: bytes) -> tuple[int, int] | None:
    first = _FIRST.match(raw)
    return first.span(1) if first else place_of_member(raw, MODEL)
