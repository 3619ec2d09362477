"""A publication with what is known of it now: status, usage and its key as far as it may be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from admin import lookups
from admin.acts.keys import NewText
from admin.handlers import views
from admin.handlers.key_showing import visible_text
from admin.schemas import Publication
from admin.services import Services
from catalog.keytext import mask
from catalog.records import PublicationRecord
from ratelimit.usage import Usage

_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True, repr=False)
class Facts:
    """What is known of a publication beside its record. Never printed: it may hold a key's text."""

    api_key: str  # masked, or whole where it may be seen
    counted: Usage

    def __repr__(self) -> str:
        return "Facts(***)"


async def facts_of(services: Services, publication: PublicationRecord) -> Facts:
    """Read what is known; the key is masked unless key recovery is on. Raises ``StoreUnavailable``."""
    counted = await services.usage(f"p:{publication.uid}", await services.store.now_ms())
    return Facts(await _visible_key(services, publication), counted)


def facts_of_new(key: NewText) -> Facts:
    """What is known of a publication just made: the whole text of its key, and that nobody called."""
    return Facts(key.text.reveal(), Usage())


def shown(services: Services, publication: PublicationRecord, known: Facts) -> Publication:
    """Show a publication. Asks nobody, so that after a commit nothing stands between it and its answer."""
    return views.publication(
        publication,
        gateway=services.gateway,
        api_key=known.api_key,
        status=services.publisher.status(publication.uid, publication.version),
        counted=known.counted,
    )


async def show(services: Services, publication: PublicationRecord) -> Publication:
    """Show a publication as it is now."""
    return shown(services, publication, await facts_of(services, publication))


async def show_all(services: Services, records: Sequence[PublicationRecord]) -> list[Publication]:
    """Show publications in their order, a bounded number of questions to the store at once."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(publication: PublicationRecord) -> Publication:
        async with slots:
            return await show(services, publication)

    return list(await asyncio.gather(*map(one, records)))


async def _visible_key(services: Services, publication: PublicationRecord) -> str:
    key = await lookups.key_of(services.store, publication) if services.mint.recovery else None
    return visible_text(key, services.mint) if key else mask(publication.key_id)
