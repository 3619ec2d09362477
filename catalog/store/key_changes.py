"""Changes of every key and service account: in pages, by compare-and-set, beside whoever else changes them.

Knows no meaning of a change but that doing it again changes nothing: so a page that met somebody else's change, or
whose answer was lost, is read and done again, and a run that was broken off is simply run again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from msgspec import structs

from catalog.changes import Audit, Put
from catalog.keys.hashing import wrap
from catalog.keys.secrets import Secrets
from catalog.records import KIND_OF, Credential, KeyRecord, Kind, ServiceAccess, UserRecord
from catalog.store.store import CatalogStore, Conflict, OutcomeUnknown

PAGE: Final = 100
"""Keys of one commit: a short script, and few callers whose record changes at once."""
MAX_TRIES: Final = 20
_PAUSE_S: Final = 0.02  # grows with each try

Holder = KeyRecord | UserRecord
"""What has credentials: a key, or the user that is a service account."""
KeyChange = Callable[[Holder], Holder]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    seen: int = 0  # keys and service accounts looked at
    changed: int = 0


class KeysChangingError(Exception):
    """Others kept changing the keys of one page."""


async def keys(store: CatalogStore) -> AsyncIterator[list[Holder]]:
    """Read all keys, then all service accounts, a page at a time; those that are made meanwhile may be left out."""
    for kind in (Kind.KEY, Kind.USER):
        after = ""
        while ids := await store.ids(kind, after=after, limit=PAGE):
            yield await _read(store, kind, ids)
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


async def _change_page(store: CatalogStore, page: Sequence[Holder], change: KeyChange, audit: Audit) -> int:
    for tried in range(1, MAX_TRIES + 1):
        puts = [Put(changed, key.version) for key in page if (changed := change(key)) != key]
        if not puts:
            return 0
        try:
            await store.commit(puts, audit=dataclasses.replace(audit, detail={"keys": str(len(puts))}))
        except (Conflict, OutcomeUnknown):
            await asyncio.sleep(_PAUSE_S * tried)
            page = await _read(store, KIND_OF[type(page[0])], [key.id for key in page])
        else:
            return len(puts)
    raise KeysChangingError("others keep changing the same keys; run it again")


async def _read(store: CatalogStore, kind: Kind, ids: Sequence[str]) -> list[Holder]:
    found = await store.get_many(kind, ids)
    return [record for record in found.values() if _has_credentials(record)]


def _has_credentials(record: object) -> TypeGuard[Holder]:
    return isinstance(record, KeyRecord) or (isinstance(record, UserRecord) and record.service is not None)


# What is changed


def wrapped(holder: Holder, secrets: Secrets) -> Holder:
    """Put the credentials under the current pepper."""
    return _replaced(holder, *(None if one is None else wrap(one, secrets) for one in _pair(holder)))


def without_ended(holder: Holder, now_ms: int) -> Holder:
    """Forget the text whose grace is over by the store's clock."""
    current, previous = _pair(holder)
    ended = previous is not None and (previous.valid_until_ms or now_ms) <= now_ms
    return _replaced(holder, current, None) if ended else holder


def credentials(holder: Holder) -> tuple[Credential, ...]:
    """Return what opens the key, or the service account."""
    return tuple(filter(None, _pair(holder)))


def _pair(holder: Holder) -> tuple[Credential | None, Credential | None]:
    owner: KeyRecord | ServiceAccess | None = holder if isinstance(holder, KeyRecord) else holder.service
    return (None, None) if owner is None else (owner.current, owner.previous)


def _replaced(holder: Holder, current: Credential | None, previous: Credential | None) -> Holder:
    if isinstance(holder, KeyRecord):
        return structs.replace(holder, current=current, previous=previous)
    if holder.service is None:
        return holder
    return structs.replace(holder, service=structs.replace(holder.service, current=current, previous=previous))
