"""A publication with what is known of it now: status, usage and its key as far as it may be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from admin import lookups
from admin.acts.keys import NewText
from admin.handlers import views
from admin.schemas import Publication
from admin.services import Services
from catalog.keytext import mask
from catalog.records import PublicationRecord
from catalog.recovery import RecoveryError, decrypt
from ratelimit.usage import Usage

_AT_ONCE: Final = 20
_log: Final = logging.getLogger(__name__)


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
    return Facts(key.text.reveal(), Usage(total=0, today=0, last_access_ms=0))


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
    masked = mask(publication.key_id)
    if not services.mint.recovery:
        return masked
    key = await lookups.key_of(services.store, publication)
    if key is None or key.recovery is None:
        return masked
    try:
        return decrypt(key.recovery, key.id, services.mint.secrets).reveal()
    except RecoveryError as error:
        _log.warning("the text of key %s cannot be recovered: %s", masked, error)
        return masked
