"""What stays of a key that was deleted, for as long as its usage is kept: whose it was, what it was for, who ended it.

Pure. Nothing of its texts stays, so that no tombstone opens anything, and gates read none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from catalog.records import KeyRecord

KEPT_S: Final = 397 * 24 * 3_600
"""13 months, as usage of what is no more; also commit.lua's."""


class Tombstone(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A key that is no more."""

    id: str  # the key's
    tenant: str
    name: str
    created_at_ms: int
    deleted_at_ms: int
    deleted_by: str  # as the audit stream calls them
    description: str | None = None
    owner: str | None = None
    labels: Mapping[str, str] | None = None

    @property
    def place(self) -> str:
        """Where it stands among its tenant's, the oldest first: ``1790000000000:0a1x…``."""
        return f"{self.deleted_at_ms:013d}:{self.id}"


def deleted_at_ms(place: str) -> int:
    """Tell from its place when a key was deleted."""
    return int(place.partition(":")[0])


def tombstone(key: KeyRecord, deleted_by: str, now_ms: int) -> Tombstone:
    """Make the tombstone of a key that is deleted now."""
    return Tombstone(
        id=key.id,
        tenant=key.tenant,
        name=key.name,
        created_at_ms=key.created_at_ms,
        deleted_at_ms=now_ms,
        deleted_by=deleted_by,
        description=key.description,
        owner=key.owner,
        labels=key.labels,
    )


_WRITER: Final = msgspec.json.Encoder()
_READER: Final = msgspec.json.Decoder(Tombstone)


def encode(stone: Tombstone) -> bytes:
    """Write a tombstone as JSON."""
    return _WRITER.encode(stone)


def decode(raw: bytes) -> Tombstone:
    """Read a tombstone; raises ``ValueError`` where it cannot be read."""
    return _READER.decode(raw)
