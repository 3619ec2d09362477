"""What can be asked of the catalog's store: changes by compare-and-set, with who did them. Pure values.

Knows no store; ``catalog.store`` commits them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from catalog.records import Kind, Record

CORRUPT: Final = -1
"""Version of a stored record whose version cannot be read. Only a ``Delete`` may expect it."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record. It is stored as version ``expected_version + 1``, whatever its own says."""

    record: Record
    expected_version: int  # what the stored one must be; 0: there must be none


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record."""

    kind: Kind
    id: str
    expected_version: int  # what the stored one must be; CORRUPT removes one that cannot be read


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, but let the commit happen only if this record is so (the tenant is still there)."""

    kind: Kind
    id: str
    expected_version: int  # what the stored one must be; 0: there must be none


@dataclass(frozen=True, slots=True)
class Room:
    """Change nothing, but let the commit happen only if so few records of a kind belong to a tenant before it."""

    kind: Kind
    tenant: str  # a tenant's name, or ALL_TENANTS: the users of every tenant
    most: int  # 99: there is room for the hundredth; 0: none is left
    allowed: bool = False  # count the publications that let this tenant call, the tenant's own among them


Change = Put | Delete | Check | Room


@dataclass(frozen=True, slots=True)
class Audit:
    """Who did what, written with the change itself. Never put a secret here."""

    actor: str  # user name
    action: str  # "publication.create"
    target: str  # what it was done to: "tenant-a/my-model"
    tenant: str
    request_id: str
    detail: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that is in force."""

    epoch: str  # the one it made
    records: dict[str, Record]  # the records put, by reference, as written
