"""The names of the catalog's keys in the store. Knows no values and talks to nobody.

The only module of the catalog that holds key strings. ``<cell>`` is ``0`` while there is one cell.

key                   type                                                          TTL   written by
tk:epoch:{<cell>}     string ``<counter>-<16 hex>``                                 none  lua/commit.lua
tk:feed:{<cell>}      stream, entry ``<counter>-0``: epoch, refs; newest 10,000     none  lua/commit.lua
tk:records:{<cell>}   string, the records' epoch a cell was told of last            none  lua/announce.lua
tk:cells:{<cell>}     string, the number of cells agreed on                         none  catalog/store/cells.py
tk:rec:<kind>:<id>    string, JSON of catalog.records                               none  lua/commit.lua
tk:index:<kind>       sorted set of record ids, every score 0                       none  lua/commit.lua
tk:index:<kind>:<tenant>          the same, of the records that belong to a tenant  none  lua/commit.lua
tk:index:pub:allowed:<tenant>     the same, of the publications it may call         none  lua/commit.lua
tk:gone:key:<id>      string, JSON of catalog.tombstones                            13 months  lua/commit.lua
tk:gone:keys:<tenant> sorted set ``<deleted_at_ms>:<id>``, every score 0            13 months  lua/commit.lua
tk:audit              stream: time_ms, actor, action, …; newest year                none  lua/commit.lua
"""

from __future__ import annotations

from typing import Final

from catalog.records import Kind

AUDIT: Final = "tk:audit"
PERMANENT: Final = ("tk:epoch:", "tk:feed:", "tk:records:", "tk:cells:", "tk:rec:", "tk:index:", AUDIT)
"""Beginnings of the keys that live without a TTL; any other key without one is a leak."""


def epoch(cell: str) -> str:
    """Key of the epoch in force: ``tk:epoch:{0}``."""
    return f"tk:epoch:{{{cell}}}"


def feed(cell: str) -> str:
    """Key of the change feed: ``tk:feed:{0}``."""
    return f"tk:feed:{{{cell}}}"


def records(cell: str) -> str:
    """Key of the newest epoch of the records' store that a cell of the budgets' store was told of."""
    return f"tk:records:{{{cell}}}"


def cells(cell: str) -> str:
    """Key of the number of cells that is agreed on: in the records' store that of cell 0, in the budgets' of each."""
    return f"tk:cells:{{{cell}}}"


def record(ref: str) -> str:
    """Key of a record, named by its reference: ``tk:rec:key:0a1x…``."""
    return f"tk:rec:{ref}"


def index(kind: Kind) -> str:
    """Key of the ids of all records of one kind: ``tk:index:tenant``."""
    return f"tk:index:{kind.value}"


def tombstone(key_id: str) -> str:
    """Key of what stays of a deleted key: ``tk:gone:key:0a1x…``."""
    return f"tk:gone:key:{key_id}"


def tombstones(tenant: str) -> str:
    """Key of a tenant's deleted keys by when they were deleted: ``tk:gone:keys:tenant-a``."""
    return f"tk:gone:keys:{tenant}"


def group(kind: Kind, tenant: str, *, allowed: bool) -> str:
    """Key of the ids of a tenant's records, ``tk:index:key:tenant-a``, or of those that allow it; also commit.lua's."""
    return f"{index(kind)}:{'allowed:' if allowed else ''}{tenant}"
