"""Reads a subject's past as ``lua/past.lua`` packs it, whose header says how. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ratelimit.usage.facts import UNUSED, Used

FORMAT: Final = 1
_HEAD_BYTES: Final = 4
_SECTION: Final = struct.Struct("<IHBB")
_SECTIONS: Final = 3
_SIGNED: Final = 128


class Past(NamedTuple):
    """Use by minutes, hours and days since the Unix epoch, but for those that still run; only where there was some."""

    minutes: dict[int, Used]
    hours: dict[int, Used]
    days: dict[int, Used]


def read_past(stored: bytes | None) -> Past:
    """Read what is stored; nothing where there is none, or it is of another form."""
    empty = Past({}, {}, {})
    if stored is None or len(stored) < _HEAD_BYTES or stored[0] != FORMAT:
        return empty
    at, sections = _HEAD_BYTES, []
    for _ in range(_SECTIONS):
        if at + _SECTION.size > len(stored):
            return empty
        first, count, call_bits, token_bits = _SECTION.unpack_from(stored, at)
        at += _SECTION.size
        signed, token_bits = token_bits >= _SIGNED, token_bits % _SIGNED
        width = (call_bits + token_bits + 7) // 8
        entries = stored[at : at + count * width]
        at += count * width
        sections.append(_section(first, entries, width, call_bits, signed=signed))
    return Past(*sections) if at == len(stored) else empty


def _section(first: int, entries: bytes, width: int, call_bits: int, *, signed: bool) -> dict[int, Used]:
    found = {}
    for place in range(len(entries) // width if width else 0):
        number = int.from_bytes(entries[place * width : (place + 1) * width], "little")
        tokens = number >> call_bits
        if signed:
            tokens = -(tokens + 1) // 2 if tokens % 2 else tokens // 2
        used = Used(number & ((1 << call_bits) - 1), tokens)
        if used != UNUSED:
            found[first + place] = used
    return found
