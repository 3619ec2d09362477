"""``tollkeeper cells move``: tenants put into another cell together, in one change of their records.

The shard in a tenant's record says where its calls are counted, so ids and key texts stay as they are, and from the
command's end no call is counted where the tenant was: the epoch fence holds its record like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import click
from redis.exceptions import RedisError

from admin.acts import cells
from admin.http.problems import Problem
from admin.models.cells import shared_by, tenants_known
from admin.services import Stores
from catalog.actors import Recordless
from catalog.changes import Audit
from catalog.damage import CorruptRecord
from catalog.ids import cell_of
from catalog.records import TenantRecord
from catalog.store.announcing import PATIENCE_S, Announcer
from catalog.store.lifting import records_epoch
from catalog.store.store import MAX_CHANGES, CatalogStore, Conflict, NoRoom, OutcomeUnknown, StoreUnavailable
from runtime.lifecycle import CannotStart
from runtime.settings import Words
from tollkeeper.admin.older_gates import traces
from tollkeeper.admin.stores import store_client
from tollkeeper.agreeing import agree_on_cells
from tollkeeper.store_settings import StoreSettings

LOOKS: Final = 3
LOOK_S: Final = 1.0
"""Gates beat and settle every second: whoever is about is seen in as many looks."""
MAX_TRIES: Final = 20
_MOST: Final = MAX_CHANGES - 100  # publications; the tenants' own changes stand beside them


class MoveTenantsSettings(StoreSettings):
    """Move tenants to another cell, all at once: those that share a model have to be named together.

    Their budgets count from zero: in a window that touches the move at most one limit more is admitted. No id, no key's
    text and no usage changes. Every gate has to be of this release.
    """

    tenants: Words
    """The tenants: NAME, or several with commas between them."""

    to_cell_of: str = ""
    """A tenant in whose cell they are to be, also when the number of cells changes."""

    to_cell: int | None = None
    """The cell itself, from 0."""


async def move(settings: MoveTenantsSettings) -> None:
    """Move them, and say from where."""
    if bool(settings.to_cell_of) == (settings.to_cell is not None):
        raise CannotStart("say --to-cell-of TENANT or --to-cell N, one of the two")
    await agree_on_cells(settings)
    async with _stores(settings) as (stores, announcer):
        try:
            await _require_new_gates(stores, settings.cells)
            await _until_settled(stores.catalog, settings)
            if announcer.owes:  # nothing was to be moved: the command before may have died before it told of its change
                await announcer.announce_all((), PATIENCE_S)
        except (StoreUnavailable, RedisError, OSError) as error:
            raise CannotStart(f"a store cannot be used: {error}; run it again") from error
        except OutcomeUnknown as error:
            raise CannotStart(f"{error}; they are moved or not, all of them: run it again") from error
        except CorruptRecord as error:
            raise CannotStart(f"{error}: nobody can tell who shares it") from error
        except Problem as problem:
            raise CannotStart("; ".join(f"--to-cell: {fault.message}" for fault in problem.faults)) from problem


@contextlib.asynccontextmanager
async def _stores(settings: StoreSettings) -> AsyncIterator[tuple[Stores, Announcer]]:
    """Give the stores, and who tells the budgets' of a change before it is answered."""
    async with store_client(settings.records) as records, store_client(settings.budgets) as budgets:
        apart = settings.budgets != settings.records
        announcer = Announcer(budgets, settings.cells, owes=apart, records_epoch=partial(records_epoch, records))
        yield Stores(records, budgets, CatalogStore(records, announcer=announcer if apart else None)), announcer


async def _require_new_gates(stores: Stores, number: int) -> None:
    """Refuse while a gate of the release before is about, which would go on counting by ids."""
    for look in range(LOOKS):
        await asyncio.sleep(LOOK_S if look else 0)
        found = await traces(stores, number)
        if found.keeping or found.old_settles:
            raise CannotStart(
                "a gate of the release before, or one with --store-format 1, was seen within the last minute: "
                "update it, or wait a minute after it was stopped"
            )


async def _until_settled(store: CatalogStore, settings: MoveTenantsSettings) -> None:
    for _ in range(MAX_TRIES):
        try:
            return await _move(store, settings)
        except (Conflict, NoRoom):
            await asyncio.sleep(LOOK_S / 10)
    raise CannotStart("others keep changing what these tenants share; nothing was moved: run it again")


async def _move(store: CatalogStore, settings: MoveTenantsSettings) -> None:
    """Read, decide and commit once."""
    names, number = [*dict.fromkeys(settings.tenants)], settings.cells
    known = await tenants_known(store, {*names, *filter(None, [settings.to_cell_of])})
    if absent := [name for name in (*names, settings.to_cell_of) if name and name not in known]:
        raise CannotStart(f"there is no tenant {absent[0]}")
    shard = _target(settings, names, known)
    moving = [known[name] for name in names if known[name].shard != shard]
    if not moving:
        click.echo(f"{', '.join(names)}: in cell {cell_of(shard, number)} already")
        return
    publications = await shared_by(store, names)
    if len(publications) > _MOST:
        raise CannotStart(f"these tenants share {len(publications)} publications; at most {_MOST} are moved at once")
    partners = {name for one in publications for name in (one.tenant, *one.allowed_tenants)}
    around = await tenants_known(store, partners)
    if left := cells.left_behind(names, shard, publications, around, number):
        more = ",".join([*names, *left])
        raise CannotStart(f"they share models with {', '.join(left)}: move them together, as {more}")
    changes = cells.moved(moving, shard, publications, await store.now_ms())
    if len(changes) > MAX_CHANGES:
        raise CannotStart(f"{len(moving)} tenants with {len(publications)} publications are too many for one move")
    detail = {"from": " ".join(str(cell_of(one.shard, number)) for one in moving), "to": str(cell_of(shard, number))}
    target = moving[0].id if len(moving) == 1 else ""
    await store.commit(
        changes, audit=Audit(Recordless.CELLS_COMMAND, "tenant.move", " ".join(names), target, "", detail)
    )
    for one in moving:
        click.echo(f"{one.id}: {_done(cell_of(one.shard, number), cell_of(shard, number))}")


def _done(before: int, cell: int) -> str:
    if before == cell:
        return f"in cell {cell} as before, from now on with the others also when the number of cells changes"
    return f"from cell {before} to {cell}; its budgets count from zero"


def _target(settings: MoveTenantsSettings, names: list[str], known: Mapping[str, TenantRecord]) -> int:
    """The shard that all of them are to have."""
    if settings.to_cell_of:
        return known[settings.to_cell_of].shard
    return cells.shard_in(settings.to_cell or 0, names[0], settings.cells)
