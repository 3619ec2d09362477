"""What can be asked of the catalog's store: changes by compare-and-set, with who did them. Pure values.

Knows no store; ``catalog.store.store`` commits them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from catalog.actors import Acting, Actor, Recordless, told
from catalog.records import KIND_OF, Kind, PublicationRecord, Record, TenantRecord, UserRecord
from catalog.tombstones import Tombstone

UNREAD: Final = frozenset({Kind.USER, Kind.MODEL, Kind.PLACE})
"""Kinds that no gate reads: a change of them moves no epoch. Known to lua/commit.lua too."""

REFS_MAX: Final = 100
"""Most references of one entry of a feed; of more changes at once readers are told that all may have changed."""

CORRUPT: Final = -1
"""Version of a stored record that cannot be read: what expects it removes that record, or writes a good one over it."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record: as version ``expected_version + 1``, whatever its own says, over a corrupt one as 1."""

    record: Record
    expected_version: int  # what the stored one must be; 0: there must be none; CORRUPT: it cannot be read
    stored: str = ""  # with CORRUPT, the digest of what is stored: its version alone may read well


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record."""

    kind: Kind
    id: str
    expected_version: int  # what the stored one must be; CORRUPT removes one that cannot be read
    created_at_ms: int | None = None  # when the stored one must have been made: one made again may have its version
    stored: str = ""  # as of ``Put``


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, but let the commit happen only if this record is so (the tenant is still there)."""

    kind: Kind
    id: str
    expected_version: int  # what the stored one must be; 0: there must be none
    created_at_ms: int | None = None  # when the stored one must have been made: one made again may have its version

    @classmethod
    def of(cls, record: TenantRecord | PublicationRecord | UserRecord) -> Check:
        """Hold a record as it was read."""
        return cls(KIND_OF[type(record)], record.id, record.version, record.created_at_ms)


@dataclass(frozen=True, slots=True)
class Room:
    """Change nothing, but let the commit happen only if so few records of a kind belong to a tenant before it."""

    kind: Kind
    tenant: str  # a tenant's name, or ALL_TENANTS: the users of every tenant
    most: int  # 99: there is room for the hundredth; 0: none is left
    allowed: bool = False  # count the publications that let this tenant call, the tenant's own among them


@dataclass(frozen=True, slots=True)
class Below:
    """Change nothing, but let the commit happen only if so few ids of a kind begin so, before it; else a conflict."""

    kind: Kind
    prefix: str  # "api.example.com/models/m/"
    most: int  # 0: there is none
    besides: str = ""  # a tenant whose own are not counted


@dataclass(frozen=True, slots=True)
class Bury:
    """Keep what a deleted key was, for as long as usage is kept; expects nothing, and no gate reads it."""

    stone: Tombstone


Change = Put | Delete | Check | Room | Below | Bury


@dataclass(frozen=True, slots=True)
class Note:
    """Who did what, as the audit stream has it. Never put a secret here."""

    actor: str  # user name, or what a part without a record is called; empty where nobody proved who they are
    action: str  # "publication.create"
    target: str  # what it was done to: "tenant-a/my-model"
    tenant: str
    request_id: str
    detail: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audit:
    """Who does what by a commit: it happens only while the actor may still do it. Never put a secret here."""

    actor: Actor
    action: str
    target: str
    tenant: str
    request_id: str
    detail: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def note(self) -> Note:
        """What the audit stream gets."""
        return Note(told(self.actor), self.action, self.target, self.tenant, self.request_id, self.detail)

    def held(self) -> Check | None:
        """What must hold of the actor at the commit: a user's record is as it was when they were authorised."""
        match self.actor:
            case Acting(user, version, created_at_ms):
                return Check(Kind.USER, user, version, created_at_ms)
            case Recordless():
                return None
            case _:
                assert_never(self.actor)


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that is in force."""

    epoch: str  # the one it made; of changes that no gate reads, the one that was in force
    records: dict[str, Record]  # the records put, by reference, as written
