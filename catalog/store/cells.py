"""The number of cells that the stores have agreed on: written at the first start, compared at each, changed on purpose.

Ids carry shards and a cell is a shard modulo the number, so whoever counts with another number tells, and is told, of
other cells. The records' store has the number once; each cell of the budgets' store has it, so that a gate that works
in a cell reads it there. No process writes records under another number (lua/commit.lua), or admits (``extauth``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from catalog.cell_number import number, require
from catalog.store import names
from catalog.store.announcing import announce
from catalog.store.lifting import CELL, bump, records_epoch

Stores = tuple[redis.asyncio.Redis, redis.asyncio.Redis]
"""The clients of records and budgets; the same one where one store keeps both."""


async def compare(stores: Stores, own: int) -> None:
    """Hold a number to what is agreed on, if anything is; raises as ``agree``."""
    records, budgets = stores
    require([await records.get(names.cells(CELL)), *await _read(budgets, own)], own)


async def agree(stores: Stores, own: int) -> None:
    """Write the number where none is; raises ``CellsDifferError``, and what the clients raise."""
    records, budgets = stores
    await compare(stores, own)
    await records.set(names.cells(CELL), own, nx=True)
    async with _pipeline(budgets) as pipeline:
        for cell in range(own):
            pipeline.set(names.cells(str(cell)), own, nx=True)
    await compare(stores, own)


async def set_cells(stores: Stores, new: int, *, actor: str) -> int:
    """Change the number, so that nobody admits or writes under the one before; returns that.

    First the records' store has the new one: no commit under another is written from then on. Then every cell, old and
    new, has it, with an epoch that no gate has proved. What was broken off is done again from the start.
    """
    records, budgets = stores
    first: Any = await records.get(names.cells(CELL))
    known = [number(one) for one in (first, *await _read(budgets, new)) if one] or [1]
    before = known[0]
    known += [number(one) for one in await _read(budgets, before) if one]
    most = max(new, *known)
    await records.set(names.cells(CELL), new)
    await bump(records, actor, "cells.set", str(new), {"from": str(before), "to": str(new)})
    if budgets is not records:
        epoch = await records_epoch(records)
        await _tell(budgets, range(1, most), new, epoch)
        await _tell(budgets, range(1), new, epoch)  # last: as long as it has the old number, the others may have it
    return before


async def _tell(budgets: redis.asyncio.Redis, cells: range, new: int, epoch: str) -> None:
    async with _pipeline(budgets) as pipeline:
        for cell in cells:
            pipeline.set(names.cells(str(cell)), new)
            pipeline.execute_command(*announce(cell, (), epoch))


async def _read(budgets: redis.asyncio.Redis, cells: int) -> list[bytes | None]:
    async with budgets.pipeline(transaction=False) as pipeline:
        for cell in range(cells):
            pipeline.get(names.cells(str(cell)))
        found: list[bytes | None] = await pipeline.execute()
        return found


@asynccontextmanager
async def _pipeline(client: redis.asyncio.Redis) -> AsyncIterator[Any]:
    """Collect commands, and send them together at the end."""
    async with client.pipeline(transaction=False) as pipeline:
        yield pipeline
        await pipeline.execute()
