"""How changes are laid out for lua/commit.lua: the keys that they hold, their names and arguments. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from catalog import tombstones
from catalog.changes import UNREAD, Below, Bury, Change, Delete, Note, Put, Room
from catalog.records import KIND_OF, Kind, encode, ref
from catalog.store import names


def note_arguments(note: Note) -> list[str]:
    """Tell who did what, in the script's order."""
    detail = json.dumps(dict(note.detail), ensure_ascii=False, sort_keys=True)
    return [note.actor, note.action, note.target, note.tenant, note.request_id, detail]


def held_key(change: Change) -> str:
    """Name the key that tells whether the change may be."""
    if isinstance(change, Room):
        return names.group(change.kind, change.tenant, allowed=change.allowed)
    if isinstance(change, Below):
        return names.group(change.kind, change.besides, allowed=False)
    if isinstance(change, Bury):
        return names.tombstone(change.stone.id)
    return names.record(ref_of(change))


def index_key(change: Change) -> str:
    """Name the index that the change is about."""
    return names.tombstones(change.stone.tenant) if isinstance(change, Bury) else names.index(kind_of(change))


def change_arguments(change: Change) -> list[Any]:
    """Tell a change, in the script's order."""
    bound = f"{bound_of(change)} {change.stored if isinstance(change, Put | Delete) else ''}".rstrip()
    return [type(change).__name__.lower(), ref_of(change), bound, id_of(change), _content(change)]


def _content(change: Change) -> bytes | int:
    if isinstance(change, Put):
        return encode(change.record)
    if isinstance(change, Bury):
        return tombstones.encode(change.stone)
    made_ms = None if isinstance(change, Room | Below) else change.created_at_ms
    return b"" if made_ms is None else made_ms


def bound_of(change: Change) -> int:
    """What is expected: a record's version, or how many there may be at most."""
    if isinstance(change, Bury):
        return 0
    return change.most if isinstance(change, Room | Below) else change.expected_version


def versioned(change: Change) -> Change:
    """Give a record to be put the version it will have."""
    if not isinstance(change, Put):
        return change
    version = max(change.expected_version, 0) + 1
    return dataclasses.replace(change, record=structs.replace(change.record, version=version))


def kind_of(change: Change) -> Kind:
    """The kind of records that a change is about."""
    if isinstance(change, Bury):
        return Kind.KEY
    return KIND_OF[type(change.record)] if isinstance(change, Put) else change.kind


def id_of(change: Change) -> str:
    """The id that a change is about: of a record, of a tenant, or the beginning of ids."""
    match change:
        case Room(tenant=tenant):
            return tenant
        case Below(prefix=prefix):
            return prefix
        case Put(record=record):
            return record.id
        case Bury(stone=stone):
            return stone.place
        case _:
            return change.id


def ref_of(change: Change) -> str:
    """Name what a change is about; no two of a commit have one name."""
    match change:
        case Room(kind=kind, tenant=tenant):
            return f"room:{kind.value}:{'allowed:' if change.allowed else ''}{tenant}"
        case Below(kind=kind, prefix=prefix):
            return f"below:{kind.value}:{change.besides}:{prefix}"
        case Bury(stone=stone):
            return f"gone:{stone.id}"
        case _:
            return ref(kind_of(change), id_of(change))


def writes_of(changes: Sequence[Change]) -> list[Put | Delete]:
    """Return those of the changes that write a record."""
    return [change for change in changes if isinstance(change, Put | Delete)]


def is_read(changes: Sequence[Change]) -> bool:
    """Whether a commit moves the epoch: unless all that it writes is of kinds that no gate reads."""
    writes = writes_of(changes)
    return not writes or any(kind_of(change) not in UNREAD for change in writes)


def lexical_range(after: str, prefix: str) -> tuple[bytes, bytes]:
    """Bounds of the ids after one and beginning with a prefix; no id has the byte FF, so that every one is below it."""
    first = f"({after}" if after and after >= prefix else f"[{prefix}" if prefix else "-"
    return first.encode(), b"(" + prefix.encode() + b"\xff" if prefix else b"+"
