"""Which stores a process uses: the settings that gate and admin share."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from catalog.ids import SHARDS
from runtime.settings import OtherBudgetsUrl, OtherStoreUrl, Settings, StoreUrl


class StoreSettings(Settings):
    """One store for all, or records and budgets apart."""

    redis_url: StoreUrl = "redis://127.0.0.1:6379/0"
    """Records and budgets: redis://, rediss://, unix:// or redis+sentinel://HOST:PORT,…/MASTER, with ?db=N."""

    records_url: OtherStoreUrl = None
    """The store of records, where it is another than `--redis-url`: one that answers only what is on disk."""

    budgets_url: OtherBudgetsUrl = None
    """The store of budgets and usage, where it is another than `--redis-url`: near and fast, perhaps a Cluster."""

    cells: int = Field(default=1, ge=1, le=SHARDS)
    """Into how many parts the budgets are split, each of one hash tag; more than one for a Cluster of budgets."""

    @property
    def records(self) -> str:
        """Where records are kept."""
        return self.records_url or self.redis_url

    @property
    def budgets(self) -> str:
        """Where budgets are kept."""
        return self.budgets_url or self.redis_url

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Only budgets can be split."""
        yield from super().conflicts()
        if self.cells > 1 and self.records == self.budgets:
            yield "cells", "needs records and budgets in two stores: give --records-url or --budgets-url"
