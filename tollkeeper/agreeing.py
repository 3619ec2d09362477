"""Into how many cells budgets are split: agreed on by whoever writes, changed by ``tollkeeper cells set``."""

from __future__ import annotations

import logging
from typing import Final

import click
from redis.exceptions import RedisError

from catalog.cell_number import CellsDifferError
from catalog.store.cells import agree, set_cells
from ratelimit.names import due_key, held_key
from runtime.lifecycle import CannotStart
from runtime.store.clients import clients_of
from tollkeeper.store_settings import StoreSettings

PATIENCE_S: Final = 1.0
"""Longest wait for each store before a start; one that cannot be asked is compared when it can be."""

_log: Final = logging.getLogger(__name__)


class SetCellsSettings(StoreSettings):
    """Change the number of cells for all: processes with another one admit and write nothing from then on.

    Start every gate and admin with the new number afterwards. Budgets of tenants whose cell changes count from zero;
    what was counted of their usage before is not shown any more.
    """


async def agree_on_cells(settings: StoreSettings) -> None:
    """Refuse to start with another number than the stores', and write it where none is; raises ``CannotStart``."""
    try:
        async with clients_of(settings.records, settings.budgets, patience_s=PATIENCE_S) as stores:
            await agree(stores, settings.cells)
    except CellsDifferError as error:
        raise CannotStart(error.sentence) from error
    except (RedisError, OSError) as error:  # whoever needs the store says so; no commit is made under another number
        _log.info("the number of cells is not compared yet: %s", error)


async def set_number(settings: SetCellsSettings) -> None:
    """Change the number and say what is to be done now."""
    new = settings.cells
    try:
        async with clients_of(settings.records, settings.budgets, patience_s=PATIENCE_S) as stores:
            before = await set_cells(stores, new, actor="tollkeeper cells")
            for cell in range(new, before):
                await stores[1].unlink(held_key(str(cell)))
                await stores[1].unlink(due_key(str(cell)))
    except (RedisError, OSError) as error:
        raise CannotStart(f"a store cannot be used: {error}; run it again, the change may be half done") from error
    click.echo(
        f"The stores have agreed on --cells {new} ({before} before). Gates and admins with another number admit and "
        f"write nothing any more: start all of them with --cells {new}. Budgets whose cell has changed count from zero."
    )
