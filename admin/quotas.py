"""How much a tenant may have, held by the commits that add to it."""

from __future__ import annotations

from typing import Final

from admin.http.problems import Code, Problem
from catalog.changes import Room
from catalog.records import Kind
from catalog.store.store import NoRoom

PER_TENANT: Final = {Kind.MODEL: 500, Kind.PUBLICATION: 100, Kind.KEY: 1_000, Kind.USER: 50}
"""Also of the users who have every tenant."""

_NAMES: Final = {Kind.MODEL: "models", Kind.PUBLICATION: "publications", Kind.KEY: "keys", Kind.USER: "users"}


def room(kind: Kind, tenant: str) -> Room:
    """What must hold so that a tenant may get one more."""
    return Room(kind, tenant, PER_TENANT[kind] - 1)


def reached(full: NoRoom) -> Problem:
    """Say which quota was reached."""
    return Problem(Code.QUOTA_REACHED, f"a tenant may have {PER_TENANT[full.kind]} {_NAMES[full.kind]}")
