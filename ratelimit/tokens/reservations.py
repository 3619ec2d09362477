"""What the gate reads of a reservation's bytes, in both formats: its terms, and until when it is kept. Pure.

Written by ``take.lua``, in whose header the layouts stand, and ended by ``settle.lua``.
"""

from __future__ import annotations

import math
import struct
from typing import Final

_FORMAT_2: Final = b"\xff\xff\x02"
_LENGTH: Final = struct.Struct("<H")  # of the terms, which a reservation of format 1 begins with
_OLD_HEAD: Final = struct.Struct("<BIIId")  # behind them: state, charged, ceiling, presumed, when it is forgotten
_HEAD: Final = struct.Struct("<3xBddB")  # format 2: state, when it is forgotten, when it was made, so many amounts
_AMOUNT_BYTES: Final = 19


def is_format_2(record: bytes) -> bool:
    """Whether it is of format 2; one of format 1 begins with the length of its terms, which is never that."""
    return record.startswith(_FORMAT_2)


def written_terms(record: bytes) -> bytes:
    """The terms that were written down; empty where they cannot be read, which settling will tell."""
    at = 0
    if is_format_2(record):
        if len(record) < _HEAD.size:
            return b""
        at = _HEAD.size + record[_HEAD.size - 1] * _AMOUNT_BYTES
    if len(record) < at + _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack_from(record, at)
    return record[at + _LENGTH.size : at + _LENGTH.size + length]


def kept_until_ms(record: bytes) -> int | None:
    """When it is forgotten, by the store's clock, if nobody settles it; ``None`` where that cannot be read."""
    if is_format_2(record):
        until_ms = _HEAD.unpack_from(record)[1] if len(record) >= _HEAD.size else math.nan
    else:
        at = _LENGTH.size + int.from_bytes(record[: _LENGTH.size], "little")
        until_ms = _OLD_HEAD.unpack_from(record, at)[-1] if len(record) >= at + _OLD_HEAD.size else math.nan
    return math.ceil(until_ms) if math.isfinite(until_ms) else None
