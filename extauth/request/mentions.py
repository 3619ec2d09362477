r"""Names that stand anywhere in a JSON text as a member's name, found by looking through its bytes. Pure.

A name in front of a colon is a member's: inside a string every quotation mark is escaped. Names may be written with
escapes (``\u0075sage``), which no encoder does of letters; where a text has a few, they are undone first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

USAGE_NAMES: Final = ("usage", "usageMetadata", "meta", "x_groq")
"""Below these the meter looks for an answer's usage (docs/tokens.md)."""
FILE_IDS: Final = (
    "file_id", "file_ids", "input_file_id", "vector_store_ids", "container_id", "container", "approval_request_id",
)  # fmt: skip
"""Fields at any depth that name what an earlier call made, where a text or a list stands there."""
REFERENCE: Final = "item_reference"
"""The `type` of an input that stands for an item of an earlier response; it may be left out."""
MAX_NESTED: Final = 50_000
"""An input with an id and more objects and lists than these is taken to name one: they take a third of a microsecond
each, in which nothing else is decided."""
MAX_VALUES: Final = 300_000
"""The same for all its values."""
MEDIA_NAMES: Final = ("image_url", "audio_url", "video_url", "input_audio", "source", "file_data", "file_url")
"""Below these an image, a sound or a document may stand (``media``)."""
MAX_ESCAPES: Final = 1_000
"""So many escaped letters are undone, a third of a microsecond each; a text with more is taken to hide names."""


class Mentions(NamedTuple):
    """What a text names, at whatever depth."""

    usage: bool = False  # a name of usage
    file_id: str = ""  # the first of FILE_IDS that has an id: a null is none, nor what a schema describes
    media: bool = False


NOTHING: Final = Mentions()

_SPACE: Final = rb"[ \t\n\r]*+"


def _named(names: Iterable[str]) -> re.Pattern[bytes]:
    return re.compile(b'"(?:' + "|".join(names).encode() + b')"' + _SPACE + b":")


_USAGE: Final = _named(USAGE_NAMES)
_MEDIA: Final = _named((*MEDIA_NAMES, *FILE_IDS))
_ANY: Final = re.compile(_named((*USAGE_NAMES, *FILE_IDS, *MEDIA_NAMES)).pattern + b'|"%s"' % REFERENCE.encode())
"""One of these names, or what may be the type of a reference."""
_IDS: Final = re.compile(b'"(' + "|".join(FILE_IDS).encode() + b')"' + _SPACE + b":" + _SPACE + rb'["\[]')
_REFERENCE: Final = re.compile(b'"type"' + _SPACE + b":" + _SPACE + b'"' + REFERENCE.encode() + b'"')
_ESCAPED: Final = re.compile(rb"\\u00(5[fF]|4[dD]|[67][0-9a-fA-F])")  # an underscore, "M", small letters
_LOOKS_ESCAPED: Final = (rb"\u006", rb"\u007", rb"\u005", rb"\u004")


def mentions(raw: bytes) -> Mentions:
    """Say which names stand in a JSON text."""
    if b"\\" in raw and rb"\u00" in raw:  # one byte is found sooner than four
        escapes = sum(raw.count(mark) for mark in _LOOKS_ESCAPED)
        if escapes > MAX_ESCAPES:
            return Mentions(usage=True, file_id=FILE_IDS[0])
        if escapes:
            raw = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), raw)
    if _ANY.search(raw) is None:
        return NOTHING
    is_reference = _REFERENCE.search(raw) is not None
    named = _IDS.search(raw)
    file_id = named[1].decode() if named else REFERENCE * is_reference
    return Mentions(_USAGE.search(raw) is not None, file_id, _MEDIA.search(raw) is not None)


_NULL: Final = Raw(b"null")


class _Item(msgspec.Struct, gc=False):
    id: Raw = _NULL
    type: Raw = _NULL
    role: Raw = _NULL


_LIST: Final = msgspec.json.Decoder(list[Raw])
_ITEM: Final = msgspec.json.Decoder(_Item)


def refers(value: bytes) -> bool:
    """Whether a Responses ``input`` has an item of an id and no kind, which stands for one of an earlier response.

    One that cannot be read to its end is taken for such.
    """
    if not value.lstrip(b" \t\n\r").startswith(b"[") or not (b'"id"' in value or rb"\u00" in value):
        return False
    if value.count(b"{") + value.count(b"[") > MAX_NESTED or value.count(b",") > MAX_VALUES:
        return True
    try:
        return any(_is_reference(item) for item in _items(value))
    except (ValueError, RecursionError):
        return True


def _items(value: bytes) -> Iterable[_Item]:
    try:
        return [_ITEM.decode(one) for one in _LIST.decode(value) if bytes(one).startswith(b"{")]
    except msgspec.DecodeError:  # NaN and the like, of which there is at most 1 MiB (``members``)
        read = json.loads(value.decode(), parse_int=float)
    objects = (one for one in read if isinstance(one, dict))
    return [
        _Item(*(_NULL if one.get(name) is None else Raw(b"") for name in ("id", "type", "role"))) for one in objects
    ]


def _is_reference(item: _Item) -> bool:
    return bytes(item.id) != b"null" and bytes(item.type) == bytes(item.role) == b"null"
