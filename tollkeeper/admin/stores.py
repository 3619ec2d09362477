"""The admin's stores: bounded clients that send nothing twice, and the catalog that tells budgets of each change."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

import redis.asyncio

from admin.services import Stores
from catalog.store.announcing import Announcer
from catalog.store.lifting import Lifter, records_epoch
from catalog.store.store import TIMEOUT_S, CatalogStore
from runtime.lifecycle import running
from runtime.store.clients import client_of
from tollkeeper.store_settings import StoreSettings


def store_client(url: str, *, timeout_s: float = TIMEOUT_S) -> redis.asyncio.Redis:
    """Make a bounded client that sends nothing twice."""
    return client_of(url, connect_s=TIMEOUT_S, answer_s=timeout_s)


@contextlib.asynccontextmanager
async def admin_stores(settings: StoreSettings) -> AsyncIterator[Stores]:
    """Give the stores while the body runs; with two of them, what one must be told of the other is told."""
    async with store_client(settings.records) as records:
        if settings.records == settings.budgets:
            yield Stores(records, records, CatalogStore(records))
            return
        async with store_client(settings.budgets) as budgets:
            announcer = Announcer(budgets, settings.cells, records_epoch=partial(records_epoch, records))
            lifter = Lifter(partial(store_client, settings.records), budgets, announcer, settings.cells)
            async with (
                running(announcer.run(), name="budgets-announcer"),
                running(lifter.run(), name="records-lifter"),
            ):
                yield Stores(records, budgets, CatalogStore(records, announcer=announcer))
