"""All publications, as the store has them."""

from __future__ import annotations

from typing import cast

from catalog.records import Kind, PublicationRecord
from catalog.store.store import PAGE, CatalogStore


async def all_publications(store: CatalogStore) -> list[PublicationRecord]:
    """Read them, a page at a time; raises ``StoreUnavailable``."""
    ids: list[str] = []
    while page := await store.ids(Kind.PUBLICATION, after=ids[-1] if ids else ""):
        ids += page
        if len(page) < PAGE:
            break
    found = await store.get_many(Kind.PUBLICATION, ids)
    return cast("list[PublicationRecord]", list(found.values()))
