"""Changes of every key there is: in pages, by compare-and-set, beside whoever else changes keys.

Knows no meaning of a change but that doing it again changes nothing: so a page that met somebody else's change, or
whose answer was lost, is read and done again, and a run that was broken off is simply run again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from catalog.changes import Audit, Put
from catalog.keys.hashing import wrap
from catalog.keys.secrets import Secrets
from catalog.records import Credential, KeyRecord, Kind
from catalog.store.store import CatalogStore, Conflict, OutcomeUnknown

PAGE: Final = 100
"""Keys of one commit: a short script, and few callers whose record changes at once."""
MAX_TRIES: Final = 20
_PAUSE_S: Final = 0.02  # grows with each try

KeyChange = Callable[[KeyRecord], KeyRecord]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    seen: int = 0  # keys looked at
    changed: int = 0


class KeysChangingError(Exception):
    """Others kept changing the keys of one page."""


async def keys(store: CatalogStore) -> AsyncIterator[list[KeyRecord]]:
    """Read all keys, a page at a time; those that are made meanwhile may be left out."""
    after = ""
    while ids := await store.ids(Kind.KEY, after=after, limit=PAGE):
        yield await _read(store, ids)
        after = ids[-1]


async def change_keys(store: CatalogStore, change: KeyChange, audit: Audit) -> AsyncIterator[Progress]:
    """Change every key that ``change`` makes another one; yields after each page.

    Raises ``KeysChangingError``, ``StoreUnavailable``; what was changed until then stays.
    """
    progress = Progress()
    async for page in keys(store):
        changed = await _change_page(store, page, change, audit)
        progress = Progress(progress.seen + len(page), progress.changed + changed)
        yield progress


async def _change_page(store: CatalogStore, page: Sequence[KeyRecord], change: KeyChange, audit: Audit) -> int:
    for tried in range(1, MAX_TRIES + 1):
        puts = [Put(changed, key.version) for key in page if (changed := change(key)) != key]
        if not puts:
            return 0
        try:
            await store.commit(puts, audit=dataclasses.replace(audit, detail={"keys": str(len(puts))}))
        except (Conflict, OutcomeUnknown):
            await asyncio.sleep(_PAUSE_S * tried)
            page = await _read(store, [key.id for key in page])
        else:
            return len(puts)
    raise KeysChangingError("others keep changing the same keys; run it again")


async def _read(store: CatalogStore, ids: Sequence[str]) -> list[KeyRecord]:
    found = await store.get_many(Kind.KEY, ids)
    return [record for record in found.values() if isinstance(record, KeyRecord)]


# What is changed


def wrapped(key: KeyRecord, secrets: Secrets) -> KeyRecord:
    """Put a key's credentials under the current pepper."""
    previous = None if key.previous is None else wrap(key.previous, secrets)
    return structs.replace(key, current=wrap(key.current, secrets), previous=previous)


def without_ended(key: KeyRecord, now_ms: int) -> KeyRecord:
    """Forget the text whose grace is over by the store's clock."""
    ended = key.previous is not None and (key.previous.valid_until_ms or now_ms) <= now_ms
    return structs.replace(key, previous=None) if ended else key


def credentials(key: KeyRecord) -> tuple[Credential, ...]:
    """Return what opens the key."""
    return (key.current,) if key.previous is None else (key.current, key.previous)
