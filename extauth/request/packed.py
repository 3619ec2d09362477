"""Bodies that were packed (``Content-Encoding``): what comes out of them, within bounds. Pure.

The gate unpacks a body to read it, of a caller who may pass; the proxy unpacks it again for the model's server. Both
must get the same, so there is one member or frame and nothing behind it, and the ratio stays below the one at which the
proxy cuts off.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS: Final = frozenset({"gzip", "zstd"})
"""What is unpacked where the proxy does it too."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Largest body once it is unpacked, in bytes."""
MOST_RATIO: Final = 32
"""So many times its own size may a body be unpacked; Envoy cuts off at 100, and real conversations reach 10."""
SMALL_BYTES: Final = 32 * 1024
"""Up to so many bytes any ratio is good: Envoy looks at none within its first 64 KiB. And so much of what
comes out is read by the standard library where it must be (``members``): a megabyte would be 31 KB to send."""
WINDOW_LOG: Final = 23
"""Most that a frame of zstd may look back, as a power of two: 8 MiB, as every decoder has (RFC 8878, 3.1.1.1.2)."""

_GZIP: Final = 16 + zlib.MAX_WBITS


IDENTITY: Final = frozenset({"", "identity"})
"""Content encodings that change nothing."""


def is_readable(encoding: str, *, unpacks: bool) -> bool:
    """Whether a body is read that came in this encoding (lower case). ``unpacks``: the proxy unpacks it too."""
    return encoding in IDENTITY or (unpacks and encoding in ENCODINGS)


UNPACKS: Final = "unpacks"
"""What the metadata of a route names where the proxy unpacks what has passed,"""
ROUTE_BYTES: Final = 512
"""which is within so many bytes of a question's end: Envoy writes a message's fields in the order of their numbers."""

_UNPACKS: Final = UNPACKS.encode()


def weights_of(payloads: Sequence[bytes]) -> list[int]:
    """What questions weigh in bytes: those on a route for packed bodies as if all that may come out stood there."""
    return [len(one) if one.find(_UNPACKS, -ROUTE_BYTES) < 0 else max(len(one), _most(len(one))) for one in payloads]


def _most(size: int) -> int:
    """Most bytes that may come out of so many."""
    return min(MOST_BYTES, max(SMALL_BYTES, MOST_RATIO * size))


class PackedError(Exception):
    """It cannot be unpacked, or not within the bounds; says why in words for the caller."""


def unpacked(raw: bytes, encoding: str) -> bytes:
    """Unpack a body; raises ``PackedError``. ``encoding``: one of ``ENCODINGS``."""
    most = _most(len(raw))
    try:
        out, is_whole, rest = (_gzip if encoding == "gzip" else _zstd)(raw, most + 1)
    except (zlib.error, zstd.ZstdError) as error:
        raise PackedError(f"The body cannot be unpacked as {encoding}: {str(error)[:100]}.") from error
    if len(out) > most:
        rule = f"it may be unpacked to {MOST_BYTES} bytes, and {MOST_RATIO} times its own size"
        raise PackedError(f"The body is packed too tightly: {rule}. Send it without Content-Encoding.")
    if not is_whole:
        raise PackedError(f"The body cannot be unpacked as {encoding}: it is cut off.")
    if rest:
        raise PackedError(f"The body cannot be unpacked as {encoding}: {len(rest)} bytes stand behind its end.")
    return out


def _gzip(raw: bytes, most: int) -> tuple[bytes, bool, bytes]:
    reader = zlib.decompressobj(_GZIP)
    return reader.decompress(raw, most), reader.eof, reader.unused_data


def _zstd(raw: bytes, most: int) -> tuple[bytes, bool, bytes]:
    reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    return reader.decompress(raw, most), reader.eof, reader.unused_data
