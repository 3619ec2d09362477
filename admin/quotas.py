"""How much a tenant may have, held by the commits that add to it. Pure: the numbers are settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from admin.http.problems import Code, Problem
from catalog.changes import Room
from catalog.records import Kind
from catalog.store.store import NoRoom

_NAMES: Final = {Kind.MODEL: "models", Kind.PUBLICATION: "publications", Kind.KEY: "keys", Kind.USER: "users"}


@dataclass(frozen=True, slots=True)
class Quotas:
    """Most of each that a tenant may have; what it has above that stays, and no more is added."""

    models: int = 500
    publications: int = 100
    keys: int = 1_000  # those that publications are born with among them
    users: int = 50  # also of the users who have every tenant

    def most(self, kind: Kind) -> int:
        """Return the quota of a kind."""
        quota: int = getattr(self, _NAMES[kind])
        return quota

    def room(self, kind: Kind, tenant: str) -> Room:
        """What must hold so that a tenant may get one more."""
        return Room(kind, tenant, self.most(kind) - 1)

    def reached(self, full: NoRoom) -> Problem:
        """Say which quota was reached."""
        return Problem(Code.QUOTA_REACHED, f"a tenant may have {self.most(full.kind)} {_NAMES[full.kind]}")


DEFAULT_QUOTAS: Final = Quotas()
