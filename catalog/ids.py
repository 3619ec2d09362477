"""Ids of keys and publications: three characters of the tenant's shard, then 80 random bits.

Pure: randomness is an argument. Knows no records and no store.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Final

SHARDS: Final = 4096
"""Shards of tenants, 0..4095: what three hexadecimal characters can name."""

SHARD_CHARACTERS: Final = 3
RANDOM_BYTES: Final = 10  # 80 bits: 16 characters of base32 without padding
ID_CHARACTERS: Final = 19
ID_PATTERN: Final = r"[0-9a-f]{3}[a-z2-7]{16}"
"""The form of an id, as a regular expression."""

_ID: Final = re.compile(ID_PATTERN)


def shard_of(tenant: str) -> int:
    """Return the shard of a tenant's name, 0..4095: the same on every machine and in every release."""
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:2]) % SHARDS


def new_id(shard: int, entropy: Callable[[int], bytes]) -> str:
    """Make an id in this shard; ``entropy`` gives that many random bytes (``os.urandom``).

    Raises ``ValueError`` when the shard is not 0..4095.
    """
    if not 0 <= shard < SHARDS:
        raise ValueError(f"shard {shard}: must be 0..{SHARDS - 1}")
    return f"{shard_prefix(shard)}{base64.b32encode(entropy(RANDOM_BYTES)).decode().lower()}"


def shard_prefix(shard: int) -> str:
    """Return how every id of a shard begins: ``07f`` for 127."""
    return f"{shard:03x}"


def is_id(text: str) -> bool:
    """Say whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def cell_of(id_or_shard: str | int, cells: int) -> int:
    """Return the cell, 0..cells-1, of an id or of a shard: ids survive a change of ``cells``."""
    shard = id_or_shard if isinstance(id_or_shard, int) else int(id_or_shard[:SHARD_CHARACTERS], 16)
    return shard % cells
