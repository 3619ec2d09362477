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
_OPENED: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]*+\{(?=[ \t\n\r]*+(\})?)")
"""An object up to its first member, and whether it has none."""


class Place(NamedTuple):
    """Bytes of a body, counted from 0."""

    begin: int
    end: int  # of the byte behind them
    in_json: bool  # a string with its quotation marks; else a form's bare text
    before: str = ""  # what is to be written before the model
    after: str = ""  # and behind it


def place_of_model(raw: bytes, content_type: str) -> Place | None:
    """Find the value of a body's ``model``, which stands there once at most (``reading``); ``None`` where none does."""
    in_json = not is_form(content_type)
    try:
        found = _in_json(raw) if in_json else place_of_field(raw, content_type, MODEL)
    except (UnreadableError, NoFormError):
        return None
    return Place(*found, in_json=in_json) if found else None


def place_for_model(raw: bytes, content_type: str) -> Place | None:
    """Find where a model can be added to a body that is read as good and has none; ``None``: to a form it is not."""
    opened = None if is_form(content_type) else _OPENED.match(raw)
    if opened is None:
        return None
    after = "" if opened[1] else ","
    return Place(opened.end(), opened.end(), in_json=True, before=f'"{MODEL}":', after=after)


def _in_json(raw: bytes) -> tuple[int, int] | None:
    first = _FIRST.match(raw)
    return first.span(1) if first else place_of_member(raw, MODEL)
