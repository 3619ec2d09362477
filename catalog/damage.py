"""Stored records that cannot be read: what is still known of them, and what removes exactly them. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from catalog.changes import CORRUPT, Delete
from catalog.records import Kind, Record, decode, ref

MAX_VERSION: Final = 2**53 - 1  # commit.lua compares versions as the doubles that its numbers are


class CorruptRecord(Exception):  # noqa: N818
    """A stored record cannot be read."""

    def __init__(self, ref: str, stored: bytes = b"") -> None:
        super().__init__(f"{ref}: the stored record cannot be read")
        self.ref = ref
        self.digest = digest_of(stored)  # of the bytes, for ``Delete.stored``; "" where it is no string
        self.tenant = _tenant_told(stored)  # as the record says, where it can still be read; "" where not

    @property
    def kind(self) -> Kind:
        """The kind of the record."""
        return Kind(self.ref.partition(":")[0])

    @property
    def id(self) -> str:
        """The id under which it is stored."""
        return self.ref.partition(":")[2]

    def removal(self) -> Delete:
        """The change that removes exactly what was found."""
        return Delete(self.kind, self.id, CORRUPT, stored=self.digest)


def decoded(kind: Kind, record_id: str, raw: bytes) -> Record:
    """Read a record; raises ``CorruptRecord`` where it cannot be read, or is another than the one asked for."""
    try:
        record = decode(kind, raw)
    except ValueError:  # its text would quote the record
        raise CorruptRecord(ref(kind, record_id), raw) from None
    if record.id != record_id or not 1 <= record.version <= MAX_VERSION:
        raise CorruptRecord(ref(kind, record_id), raw)
    return record


def read(kind: Kind, record_id: str, raw: bytes) -> Record | CorruptRecord:
    """Read a record, or say what is wrong with it."""
    try:
        return decoded(kind, record_id, raw)
    except CorruptRecord as error:
        return error


def digest_of(stored: bytes) -> str:
    """Name stored bytes as commit.lua does; "" for none. No secret: it tells one damaged record from another."""
    return hashlib.sha1(stored, usedforsecurity=False).hexdigest() if stored else ""


def _tenant_told(stored: bytes) -> str:
    """Return the tenant that a damaged record still names; "" where it names none."""
    try:
        told = json.loads(stored)
    except (ValueError, RecursionError):
        return ""
    tenant = told.get("tenant") if isinstance(told, dict) else None
    return tenant if isinstance(tenant, str) else ""
